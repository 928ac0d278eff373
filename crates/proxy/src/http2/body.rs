//! A body as it comes. That of a request is kept at its beginning: an upstream may refuse a stream that it has not looked
//! at, and then the request goes to another connection.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;

use crate::captured::Captured;
use crate::telemetry::Limit;

/// A part of a body.
#[derive(Clone)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// A body that is read once, and can be begun again as long as all of it is kept.
pub(super) struct Body {
    from: RecvStream,
    /// Bytes that were read, and that the sender does not know to be.
    owed: usize,
    kept: Vec<Part>,
    /// How many of the kept parts were given.
    given: usize,
    /// As long as nothing is lost: how many bytes may still be kept, and for whom.
    keeping: Option<(usize, Rc<Captured>)>,
}

impl Body {
    /// A request's, which may have to be begun again.
    pub(super) fn kept(from: RecvStream, captured: Rc<Captured>) -> Body {
        let room = captured.live.limits.replay_bytes;
        Body { keeping: Some((room, captured)), ..Body::once(from) }
    }

    /// A body that is given once.
    pub(super) fn once(from: RecvStream) -> Body {
        Body { from, owed: 0, kept: Vec::new(), given: 0, keeping: None }
    }

    /// No part is needed a second time.
    pub(super) fn settle(&mut self) {
        self.keeping = None;
        self.kept.drain(..self.given);
        self.given = 0;
    }

    /// Begins again, if everything is kept.
    pub(super) fn again(&mut self) -> bool {
        self.given = 0;
        self.keeping.is_some()
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.given == self.kept.len() && self.from.is_end_stream()
    }

    /// What was given has been taken: its sender may send as much again.
    pub(super) fn taken(&mut self) {
        // It fails only where more is given back than came.
        let _ = self.from.flow_control().release_capacity(std::mem::take(&mut self.owed));
    }

    /// The next part; nothing at the end. A part that is given for the first time is `seen`.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        seen: impl Fn(&Part),
    ) -> Poll<Result<Option<Part>, h2::Error>> {
        if let Some(part) = self.kept.get(self.given) {
            self.given += 1;
            return Poll::Ready(Ok(Some(part.clone())));
        }
        let part = match ready!(self.from.poll_data(context)) {
            Some(data) => {
                let data = data?;
                self.owed += data.len();
                Part::Data(data)
            }
            None => match ready!(self.from.poll_trailers(context))? {
                Some(trailers) => Part::Trailers(trailers),
                None => return Poll::Ready(Ok(None)),
            },
        };
        seen(&part);
        self.keep(&part);
        Poll::Ready(Ok(Some(part)))
    }

    fn keep(&mut self, part: &Part) {
        let Some((room, captured)) = &mut self.keeping else { return };
        let bytes = match part {
            Part::Data(data) => data.len(),
            Part::Trailers(_) => 0,
        };
        if bytes > *room {
            captured.side().met(Limit::ReplayBytes);
            return self.settle();
        }
        *room -= bytes;
        self.kept.push(part.clone());
        self.given += 1;
    }
}
