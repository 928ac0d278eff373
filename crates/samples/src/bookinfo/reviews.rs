//! What reviewers say of a book: `/reviews/{id}`. Version v1 has their words alone; v2 and v3 ask `ratings` for stars, black
//! ones and red ones.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use super::{GET, PORT, Service, env, health, healthy, passed_on, product};
use crate::Failed;
use crate::server::{self, Answer, Asked, Route, json_answer};

/// How long ratings are waited for: less than the page waits for the reviews.
const PATIENCE: Duration = Duration::from_secs(2);

/// Each version: its name, and the colour of its stars, if it has any.
const VERSIONS: [(&str, Option<&str>); 3] = [("v1", None), ("v2", Some("black")), ("v3", Some("red"))];

const REVIEWS: [(&str, &str); 2] = [
    ("Reviewer1", "Two pairs of twins, one day, and not a dull minute. Shakespeare at his quickest."),
    ("Reviewer2", "Great fun from beginning to end, if thinner than the plays that came after it."),
];

/// Reviews of one version.
#[derive(Debug, Clone)]
struct Reviews {
    version: &'static str,
    /// The colour of the stars, and who knows how many there are.
    stars: Option<(&'static str, Service)>,
    pod: String,
}

/// Serves until SIGTERM.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let reviews = Reviews::read(&env)?;
    server::run(arguments, PORT, move |asked| answer(reviews.clone(), asked))
}

impl Reviews {
    /// `SERVICE_VERSION` is the version, v1 without it.
    fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Reviews, Failed> {
        let wanted = env("SERVICE_VERSION").unwrap_or_else(|| "v1".to_owned());
        let Some((version, color)) = VERSIONS.into_iter().find(|(version, _)| *version == wanted) else {
            return Err((
                2,
                format!("SERVICE_VERSION={wanted:?} is no version of reviews: expected v1, v2 or v3"),
            ));
        };
        let stars = color.map(|color| Ok((color, Service::read("ratings", env)?))).transpose()?;
        Ok(Reviews { version, stars, pod: env("HOSTNAME").unwrap_or_default() })
    }

    /// The reviews of a book, each with its rating if there are stars in this version.
    async fn of(&self, id: u64, headers: HeaderMap) -> Value {
        let rating = match &self.stars {
            None => None,
            Some((color, ratings)) => {
                Some((*color, ratings.ask_for(&format!("/ratings/{id}"), headers, PATIENCE).await))
            }
        };
        let review = |(reviewer, text)| {
            let mut review = json!({"reviewer": reviewer, "text": text});
            match &rating {
                None => {}
                Some((color, Ok(ratings))) => {
                    review["rating"] = json!({"stars": ratings["ratings"][reviewer], "color": color});
                }
                Some((_, Err(reason))) => {
                    review["rating"] = json!({"error": format!("ratings are unavailable: {reason}")});
                }
            }
            review
        };
        json!({
            "id": id.to_string(),
            "podname": self.pod,
            "version": self.version,
            "reviews": REVIEWS.map(review),
        })
    }
}

/// A path: whether it is that of the reviews.
static ROUTES: [Route<bool>; 2] =
    [Route { path: "/reviews/{id}", methods: GET, says: "a book's reviews", handler: true }, health(false)];

async fn answer(reviews: Reviews, asked: Asked) -> Answer {
    match server::route(&ROUTES, &asked).map(|(route, id)| route.handler.then(|| product(id))) {
        Ok(Some(Ok(id))) => json_answer(&reviews.of(id, passed_on(&asked.headers)).await),
        Ok(None) => healthy("reviews"),
        Ok(Some(Err(refusal))) | Err(refusal) => *refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, away, json_of, served};
    use super::super::{ratings, refused};
    use super::*;

    fn version(version: &'static str, ratings: Service) -> Reviews {
        let (version, color) = VERSIONS.into_iter().find(|(name, _)| *name == version).unwrap();
        Reviews { version, stars: color.map(|color| (color, ratings)), pod: "reviews-7".to_owned() }
    }

    #[test]
    fn the_version_is_one_that_there_is() {
        let of = |version: Option<&str>| {
            let version = version.map(str::to_owned);
            Reviews::read(&move |name| version.clone().filter(|_| name == "SERVICE_VERSION"))
        };
        let color = |reviews: Reviews| reviews.stars.map(|(color, _)| color);
        assert_eq!(color(of(None).unwrap()), None);
        assert_eq!(color(of(Some("v1")).unwrap()), None);
        assert_eq!(color(of(Some("v2")).unwrap()), Some("black"));
        assert_eq!(color(of(Some("v3")).unwrap()), Some("red"));
        let wrong = "SERVICE_VERSION=\"4\" is no version of reviews: expected v1, v2 or v3";
        assert_eq!(of(Some("4")).unwrap_err(), (2, wrong.to_owned()));
    }

    #[tokio::test]
    async fn all_but_the_first_version_have_stars() {
        let ratings = served("ratings", ratings::answer).await;
        for (name, color) in VERSIONS {
            let answer = answer(version(name, ratings.clone()), asked("/reviews/0", &[])).await;
            let (status, json) = json_of(answer).await;
            assert_eq!((status, &json["id"], &json["version"]), (200, &json!("0"), &json!(name)));
            assert_eq!(json["podname"], "reviews-7");
            for (at, (reviewer, text), stars) in [(0, REVIEWS[0], 5), (1, REVIEWS[1], 4)] {
                let review = &json["reviews"][at];
                assert_eq!((&review["reviewer"], &review["text"]), (&json!(reviewer), &json!(text)));
                let rating = color.map_or(Value::Null, |color| json!({"stars": stars, "color": color}));
                assert_eq!(review["rating"], rating, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn ratings_that_are_away_are_said_to_be() {
        let (ratings, _socket) = away("ratings");
        let (status, json) = json_of(answer(version("v2", ratings), asked("/reviews/0", &[])).await).await;
        assert_eq!((status, &json["reviews"][1]["text"]), (200, &json!(REVIEWS[1].1)));
        let error = json["reviews"][1]["rating"]["error"].as_str().unwrap();
        assert!(error.starts_with("ratings are unavailable: 127.0.0.1:"), "{error}");
    }

    #[tokio::test]
    async fn ratings_hear_of_the_trace() {
        let ratings = served("ratings", |asked: Asked| async move {
            let id = asked.headers.get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
            refused(http::StatusCode::SERVICE_UNAVAILABLE, &format!("{id:?} {}", asked.uri))
        })
        .await;
        let asked = asked("/reviews/2", &[("x-request-id", "abc"), ("cookie", "secret")]);
        let (_, json) = json_of(answer(version("v3", ratings), asked).await).await;
        assert_eq!(
            json["reviews"][0]["rating"]["error"],
            "ratings are unavailable: 503 Service Unavailable: Some(\"abc\") /ratings/2"
        );
    }
}
