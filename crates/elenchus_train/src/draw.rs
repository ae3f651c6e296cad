//! What reports are drawn with: HTML pages, Markdown cells, plots, and numbers at a readable precision.

mod html;
mod markdown;
pub(crate) mod plot;
pub mod rows;
pub mod scale;

pub use html::{escaped, head};
pub use markdown::markdown_escaped;
