//! What the core asks an edge about itself: `Query`, `Answer`.

use bytes::{BufMut, Bytes, BytesMut};

use super::FrameError;
use super::body::{Body, checked_rest, put_text};
use crate::code::AnswerStatus;
use crate::limits;

/// A question to an edge; it answers on a stream of its own, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryFrame {
    /// Chosen by the core, once in a connection.
    pub id: u32,
    /// `status` or `peek`.
    pub what: String,
    /// JSON object, or nothing.
    pub arguments: Bytes,
}

impl QueryFrame {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<Bytes, FrameError> {
        out.put_u32(self.id);
        put_text(out, "question", &self.what, limits::MAX_QUERY_NAME)?;
        checked_rest(&self.arguments, limits::MAX_QUERY_ARGUMENTS)
    }

    pub(super) fn take(body: &mut Body) -> Result<QueryFrame, FrameError> {
        Ok(QueryFrame {
            id: body.u32("query id")?,
            what: body.text("question", limits::MAX_QUERY_NAME)?,
            arguments: body.rest("arguments", limits::MAX_QUERY_ARGUMENTS)?,
        })
    }
}

/// What the edge says to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerFrame {
    /// Of the query.
    pub id: u32,
    pub status: AnswerStatus,
    /// JSON: what was asked for, or a text that says why there is none.
    pub json: Bytes,
}

impl AnswerFrame {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<Bytes, FrameError> {
        out.put_u32(self.id);
        out.put_u8(self.status.to_wire());
        checked_rest(&self.json, limits::MAX_ANSWER)
    }

    pub(super) fn take(body: &mut Body) -> Result<AnswerFrame, FrameError> {
        Ok(AnswerFrame {
            id: body.u32("query id")?,
            status: AnswerStatus::from_wire(body.u8("status")?),
            json: body.rest("answer", limits::MAX_ANSWER)?,
        })
    }
}
