//! One direction of a stream: parts of a body, in order, as fast as the receiver takes them.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Error, Reason, SendStream};

use super::body::{Body, Part};

/// A body on its way.
pub(super) struct Pump {
    body: Body,
    to: SendStream<Bytes>,
    /// What the receiver has no room for yet, and whether nothing comes after it.
    waiting: Option<(Bytes, bool)>,
    over: bool,
}

/// Which side broke.
pub(super) enum Broken {
    From(Error),
    To(Error),
}

impl Pump {
    /// Carries `body` to `to`, which has been told already if there is nothing to carry.
    pub(super) fn new(body: Body, to: SendStream<Bytes>, empty: bool) -> Pump {
        Pump { body, to, waiting: None, over: empty }
    }

    /// The body, and its receiver is left.
    pub(super) fn into_body(self) -> Body {
        self.body
    }

    pub(super) fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// Whether nothing more is carried, as all of it has been, or one side broke.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Resets the receiver's stream, both ways.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.to.send_reset(reason);
    }

    /// Carries what can be carried now; ready once, when that is over. Parts that come for the first time are `seen`.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        seen: impl Fn(&Part),
    ) -> Poll<Result<(), Broken>> {
        if self.over {
            return Poll::Pending;
        }
        let polled = match self.carry(context, seen) {
            polled @ Poll::Ready(Ok(()) | Err(Broken::From(_))) => polled,
            // Whoever waits for it is told of a reset; and a reset says more than that nothing can be sent.
            polled => match self.to.poll_reset(context) {
                Poll::Ready(reset) => {
                    Poll::Ready(Err(Broken::To(reset.map_or_else(|error| error, Error::from))))
                }
                Poll::Pending => polled,
            },
        };
        self.over = polled.is_ready();
        polled
    }

    fn carry(&mut self, context: &mut Context<'_>, seen: impl Fn(&Part)) -> Poll<Result<(), Broken>> {
        loop {
            if self.waiting.is_some() {
                ready!(self.room(context)).map_err(Broken::To)?;
            }
            if let Some((data, last)) = self.waiting.take() {
                self.to.send_data(data, last).map_err(Broken::To)?;
                self.body.taken();
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(self.body.poll(context, &seen)).map_err(Broken::From)? {
                // It says nothing, or nothing but the end, for which there is always room.
                Some(Part::Data(data)) if data.is_empty() => {
                    if self.body.is_over() {
                        return Poll::Ready(self.to.send_data(data, true).map_err(Broken::To));
                    }
                }
                Some(Part::Data(data)) => {
                    // Room that is asked for is room that other streams of the connection do not have; so as little as can
                    // be, and only once there is something to send.
                    self.to.reserve_capacity(1);
                    self.waiting = Some((data, self.body.is_over()));
                }
                Some(Part::Trailers(trailers)) => {
                    return Poll::Ready(self.to.send_trailers(trailers).map_err(Broken::To));
                }
                None => return Poll::Ready(self.to.send_data(Bytes::new(), true).map_err(Broken::To)),
            }
        }
    }

    /// Waits until the receiver takes something.
    fn room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.to.capacity() == 0 {
            match ready!(self.to.poll_capacity(context)) {
                Some(room) => room.map(drop)?,
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
        Poll::Ready(Ok(()))
    }
}
