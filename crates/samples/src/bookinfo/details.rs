//! What is known of a book: `/details/{id}`.

use serde_json::json;

use super::{ById, GET, PORT, by_id, health, healthy, product};
use crate::Failed;
use crate::server::{self, Answer, Asked, Route, json_answer};

/// Serves until SIGTERM.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    server::run(arguments, PORT, answer)
}

static ROUTES: [Route<ById>; 2] = [
    Route { path: "/details/{id}", methods: GET, says: "a book's details", handler: details },
    health(|_| healthy("details")),
];

pub(super) async fn answer(asked: Asked) -> Answer {
    by_id(&ROUTES, &asked)
}

/// There is one book, whatever its number.
fn details(id: &str) -> Answer {
    let id = match product(id) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    json_answer(&json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, json_of};
    use super::*;

    #[tokio::test]
    async fn a_book_has_details() {
        let (status, details) = json_of(answer(asked("/details/3", &[])).await).await;
        assert_eq!(status, 200);
        assert_eq!(
            (&details["id"], &details["year"], &details["pages"]),
            (&json!(3), &json!(1595), &json!(200))
        );
        assert_eq!(details["author"], "William Shakespeare");
        let (status, json) = json_of(answer(asked("/details/x", &[])).await).await;
        assert_eq!((status, json), (400, json!({"error": "\"x\" is no product: expected a number"})));
        let (status, json) = json_of(answer(asked("/health", &[])).await).await;
        assert_eq!((status, json), (200, json!({"status": "details is healthy"})));
        assert_eq!(answer(asked("/", &[])).await.status(), 404);
    }
}
