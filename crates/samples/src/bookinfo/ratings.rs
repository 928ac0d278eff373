//! How many stars reviewers gave: `/ratings/{id}`.

use serde_json::json;

use super::{ById, GET, PORT, by_id, health, healthy, product};
use crate::Failed;
use crate::server::{self, Answer, Asked, Route, json_answer};

/// Serves until SIGTERM.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    server::run(arguments, PORT, answer)
}

static ROUTES: [Route<ById>; 2] = [
    Route { path: "/ratings/{id}", methods: GET, says: "a book's ratings", handler: ratings },
    health(|_| healthy("ratings")),
];

pub(super) async fn answer(asked: Asked) -> Answer {
    by_id(&ROUTES, &asked)
}

fn ratings(id: &str) -> Answer {
    match product(id) {
        Ok(id) => json_answer(&json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})),
        Err(refusal) => *refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, json_of};
    use super::*;

    #[tokio::test]
    async fn a_book_has_ratings() {
        let (status, json) = json_of(answer(asked("/ratings/0", &[])).await).await;
        assert_eq!((status, json), (200, json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})));
        assert_eq!(answer(asked("/ratings/-1", &[])).await.status(), 400);
        let (status, json) = json_of(answer(asked("/health", &[])).await).await;
        assert_eq!((status, json), (200, json!({"status": "ratings is healthy"})));
    }
}
