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
mod happening;
mod limits;
mod listener;
mod namespaces;
pub mod path;
pub mod review;
mod router;
mod span;

pub use limits::Limits;
pub use listener::{Listener, bind};
pub use namespaces::Namespaces;
pub use router::{Around, Phase, Webhook, admin_router, router};
pub use span::Tracer;
