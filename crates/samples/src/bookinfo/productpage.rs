//! The page itself, and the same as JSON: what details and reviews say, or that one of them is unavailable.

use std::time::Duration;

use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::{GET, PORT, Service, env, health, healthy, page, passed_on, product};
use crate::Failed;
use crate::server::{self, Answer, Asked, Route, json_answer, refused, whole};

/// How long another part is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The only book.
pub(super) const TITLE: &str = "The Comedy of Errors";
pub(super) const DESCRIPTION: &str = "One of Shakespeare's early plays, and his shortest: twins who do not know of each \
                                      other are taken for each other all day long.";

/// The parts that the page is made of.
#[derive(Debug, Clone)]
struct Parts {
    details: Service,
    reviews: Service,
    ratings: Service,
}

/// Serves until SIGTERM.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let parts = Parts {
        details: Service::read("details", &env)?,
        reviews: Service::read("reviews", &env)?,
        ratings: Service::read("ratings", &env)?,
    };
    server::run(arguments, PORT, move |asked| answer(parts.clone(), asked))
}

/// What a path shows.
#[derive(Debug, Clone, Copy)]
enum Shows {
    Start,
    Page,
    Products,
    /// What another part says of a product.
    Part(fn(&Parts) -> &Service),
    Health,
}

const fn at(path: &'static str, says: &'static str, shows: Shows) -> Route<Shows> {
    Route { path, methods: GET, says, handler: shows }
}

/// Every path.
static ROUTES: [Route<Shows>; 7] = [
    at("/", "the way to the page", Shows::Start),
    at("/productpage", "the page", Shows::Page),
    at("/api/v1/products", "all books", Shows::Products),
    at("/api/v1/products/{id}", "a book's details", Shows::Part(|parts| &parts.details)),
    at("/api/v1/products/{id}/reviews", "its reviews", Shows::Part(|parts| &parts.reviews)),
    at("/api/v1/products/{id}/ratings", "its ratings", Shows::Part(|parts| &parts.ratings)),
    health(Shows::Health),
];

async fn answer(parts: Parts, asked: Asked) -> Answer {
    let (shows, rest) = match server::route(&ROUTES, &asked) {
        Ok((route, rest)) => (route.handler, rest),
        Err(refusal) => return *refusal,
    };
    let headers = passed_on(&asked.headers);
    match shows {
        Shows::Start => {
            let mut answer = whole("text/plain", "");
            *answer.status_mut() = StatusCode::FOUND;
            answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/productpage"));
            answer
        }
        Shows::Page => {
            let (details, reviews) = tokio::join!(
                parts.details.ask_for("/details/0", headers.clone(), PATIENCE),
                parts.reviews.ask_for("/reviews/0", headers, PATIENCE),
            );
            whole("text/html; charset=utf-8", page::page(&details, &reviews))
        }
        Shows::Products => json_answer(&json!([{"id": 0, "title": TITLE, "descriptionHtml": DESCRIPTION}])),
        Shows::Part(part) => part_of(part(&parts), rest, headers).await,
        Shows::Health => healthy("productpage"),
    }
}

/// What a part says of a product, with its status; 503 with the reason if it says nothing.
async fn part_of(part: &Service, id: &str, headers: HeaderMap) -> Answer {
    let id = match product(id) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    match part.ask(&format!("/{}/{id}", part.name), headers, PATIENCE).await {
        Ok((status, body)) => {
            let mut answer = json_answer(&body);
            *answer.status_mut() = status;
            answer
        }
        Err(reason) => {
            let reason = format!("{} are unavailable: {reason}", part.name);
            refused(StatusCode::SERVICE_UNAVAILABLE, &reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::super::tests::{asked, away, json_of, served};
    use super::super::{details, ratings};
    use super::*;

    /// Says with which trace it was asked, and for what.
    async fn echo(asked: Asked) -> Answer {
        let trace = asked.headers.get("traceparent").map(|value| value.to_str().unwrap());
        json_answer(&json!({"path": asked.uri.path(), "trace": trace}))
    }

    #[tokio::test]
    async fn the_page_has_what_there_is_and_says_what_is_unavailable() {
        let (reviews, _socket) = away("reviews");
        let details = served("details", details::answer).await;
        let parts = Parts { details, reviews: reviews.clone(), ratings: reviews };
        let page = answer(parts.clone(), asked("/productpage", &[])).await;
        assert_eq!(
            (page.status().as_u16(), page.headers()["content-type"].to_str().unwrap()),
            (200, "text/html; charset=utf-8")
        );
        let page = String::from_utf8(page.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert!(page.contains("<dd>PublisherA</dd>"), "{page}");
        assert!(page.contains("Reviews are unavailable: 127.0.0.1:"), "{page}");

        let (status, json) = json_of(answer(parts, asked("/api/v1/products/0/ratings", &[])).await).await;
        let error = json["error"].as_str().unwrap();
        assert_eq!(
            (status, error.starts_with("reviews are unavailable: 127.0.0.1:")),
            (503, true),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_parts_are_asked_within_the_trace() {
        let parts = Parts {
            details: served("details", echo).await,
            reviews: served("reviews", echo).await,
            ratings: served("ratings", echo).await,
        };
        for (path, at) in [("", "/details/7"), ("/reviews", "/reviews/7"), ("/ratings", "/ratings/7")] {
            let asked = asked(&format!("/api/v1/products/7{path}"), &[("traceparent", "00-a-b-01")]);
            let (status, json) = json_of(answer(parts.clone(), asked).await).await;
            assert_eq!((status, json), (200, json!({"path": at, "trace": "00-a-b-01"})));
        }
    }

    #[tokio::test]
    async fn what_a_part_refuses_is_refused() {
        let part = served("ratings", ratings::answer).await;
        let details = Service { name: "details", ..part.clone() };
        let parts = Parts { details, reviews: part.clone(), ratings: part };
        // The one that serves all of them has ratings alone.
        let (status, json) = json_of(answer(parts.clone(), asked("/api/v1/products/0", &[])).await).await;
        assert_eq!((status, &json["error"]), (404, &json!("there is nothing at /details/0")));
        let (status, _) = json_of(answer(parts, asked("/api/v1/products/one", &[])).await).await;
        assert_eq!(status, 400);
    }

    #[tokio::test]
    async fn what_needs_nobody_is_answered_by_itself() {
        let (away, _socket) = away("details");
        let parts = Parts { details: away.clone(), reviews: away.clone(), ratings: away };
        let start = answer(parts.clone(), asked("/", &[])).await;
        assert_eq!(
            (start.status().as_u16(), start.headers()["location"].to_str().unwrap()),
            (302, "/productpage")
        );
        let (_, products): (_, Value) =
            json_of(answer(parts.clone(), asked("/api/v1/products", &[])).await).await;
        assert_eq!((&products[0]["id"], &products[0]["title"]), (&json!(0), &json!(TITLE)));
        let (status, json) = json_of(answer(parts, asked("/health", &[])).await).await;
        assert_eq!((status, json), (200, json!({"status": "productpage is healthy"})));
    }
}
