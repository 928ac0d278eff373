//! A request's body, counted, and kept at its beginning: an upstream may refuse a stream that it has not looked at, and
//! then the request goes to another connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::record::Record;
use crate::telemetry::Limit;

/// A body that is read once, and can be begun again as long as all of it is kept.
pub(super) struct Source {
    incoming: Incoming,
    kept: VecDeque<Part>,
    bytes: usize,
    /// Something is kept no longer.
    lost: bool,
    record: Rc<Record>,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Source {
    /// No part is needed a second time.
    pub(super) fn settle(&mut self) {
        self.lost = true;
        self.kept = VecDeque::new();
    }

    /// Whether the body can be begun again.
    pub(super) fn again(&self) -> bool {
        !self.lost
    }

    fn keep(&mut self, part: Part, bytes: usize) {
        self.bytes += bytes;
        if !self.lost && self.bytes > self.record.captured().live.limits.replay_bytes {
            self.record.captured().side().met(Limit::ReplayBytes);
            self.settle();
        }
        if !self.lost {
            self.kept.push_back(part);
        }
    }
}

/// One way through a [`Source`].
pub(super) struct RequestBody {
    source: Rc<RefCell<Source>>,
    /// How many of the kept parts were given.
    given: usize,
}

impl RequestBody {
    /// The first way through `incoming`.
    pub(super) fn new(incoming: Incoming, record: Rc<Record>) -> RequestBody {
        let source = Source { incoming, kept: VecDeque::new(), bytes: 0, lost: false, record };
        RequestBody { source: Rc::new(RefCell::new(source)), given: 0 }
    }

    /// What the body is read from.
    pub(super) fn source(&self) -> Rc<RefCell<Source>> {
        Rc::clone(&self.source)
    }

    /// Another way through `source`, from its beginning.
    pub(super) fn again(source: &Rc<RefCell<Source>>) -> RequestBody {
        RequestBody { source: Rc::clone(source), given: 0 }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut source = this.source.borrow_mut();
        if let Some(part) = source.kept.get(this.given) {
            this.given += 1;
            return Poll::Ready(Some(Ok(match part.clone() {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        let frame = ready!(Pin::new(&mut source.incoming).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                source.record.receive(data);
                source.keep(Part::Data(data.clone()), data.len());
            } else if let Some(trailers) = frame.trailers_ref() {
                source.keep(Part::Trailers(trailers.clone()), 0);
            }
            this.given = source.kept.len();
        }
        if frame.is_none() || source.incoming.is_end_stream() {
            source.record.uploaded();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        self.given >= source.kept.len() && source.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        if source.kept.is_empty() { source.incoming.size_hint() } else { SizeHint::default() }
    }
}
