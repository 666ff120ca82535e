//! What running nodes do: the live loop.

pub mod author;
pub mod learner;

pub use author::{AuthorError, AuthorFile};
pub use learner::{Learner, LearnerError};
