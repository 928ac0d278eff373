//! A request's body, bounded in size by itself and together with all others.

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Why a body cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is larger than one body may be.
    TooLarge,
    /// All bodies together are larger than they may be.
    Busy,
    /// It stopped before its end.
    Incomplete(String),
}

/// How much of a body over the limit is read and thrown away, in limits. A client that is still sending
/// when we close would never see why.
const PATIENCE: usize = 4;

/// Reads a body of at most `limit` bytes. Its bytes are taken from `budget`, and given back when what comes
/// with the body is dropped.
pub(super) async fn read<'b>(
    mut body: Body,
    limit: usize,
    budget: &'b Semaphore,
) -> Result<(Vec<u8>, SemaphorePermit<'b>), Refused> {
    let mut bytes = Vec::new();
    let mut held = acquire(budget, 0)?;
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refused::Incomplete(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > limit {
            bytes = Vec::new();
            held = acquire(budget, 0)?;
            if size > limit.saturating_mul(PATIENCE) {
                break;
            }
        } else {
            held.merge(acquire(budget, data.len())?);
            bytes.extend_from_slice(&data);
        }
    }
    if size > limit { Err(Refused::TooLarge) } else { Ok((bytes, held)) }
}

/// Reads a body of at most `limit` bytes for nothing, so that its connection can be used again.
pub(super) async fn discard(mut body: Body, limit: usize) {
    let mut size = 0;
    while let Some(Ok(frame)) = body.frame().await {
        size += frame.data_ref().map_or(0, |data| data.len());
        if size > limit {
            break;
        }
    }
}

fn acquire(budget: &Semaphore, bytes: usize) -> Result<SemaphorePermit<'_>, Refused> {
    let permits = u32::try_from(bytes).map_err(|_| Refused::TooLarge)?;
    budget.try_acquire_many(permits).map_err(|_| Refused::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_share_a_budget() {
        let budget = Semaphore::new(10);
        let (bytes, held) = read(Body::from("12345678"), 8, &budget).await.unwrap();
        assert_eq!(bytes, b"12345678");
        assert_eq!(read(Body::from("123"), 8, &budget).await.unwrap_err(), Refused::Busy);
        drop(held);
        assert!(read(Body::from("123"), 8, &budget).await.is_ok());
        assert_eq!(budget.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_and_holds_nothing() {
        let budget = Semaphore::new(100);
        for length in [9, 32, 33, 1000] {
            let body = Body::from("x".repeat(length));
            assert_eq!(read(body, 8, &budget).await.unwrap_err(), Refused::TooLarge, "{length}");
            assert_eq!(budget.available_permits(), 100);
        }
    }
}
