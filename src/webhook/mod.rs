//! HTTPS: the API server asks, the injector answers.
//!
//! ```text
//! listener ─> body ─> review ─> injection ─> patch ─> review
//!   limits      limits   in                             out
//! ```
//!
//! Sources: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

mod admit;
mod body;
mod connection;
mod limits;
mod listener;
pub mod path;
pub mod review;
mod router;

pub use limits::Limits;
pub use listener::{Listener, bind};
pub use router::{Phase, Webhook, admin_router, router};
