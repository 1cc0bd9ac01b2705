//! Figures: drawn with the same few elements, in colours that stay apart for every eye and in grey.
//!
//! [`canvas`] has the elements, [`axis`] the scales, [`mark`] the colour and the shape of each subject: shapes repeat
//! what colours say. A value of 0 on a logarithmic axis has a strip of its own at the foot, marked 0.

mod axis;
mod canvas;
mod curve;
mod drift;
mod forest;
pub mod grid;
mod heat_map;
mod iso;
pub mod lines;
mod mark;
mod occupancy;
mod stack;
mod tail;

pub use curve::curve;
pub use drift::drift;
pub use forest::{forest, modes};

use super::analysis::{Analysis, Experiment};
use super::document::Figure;
use crate::definition::Picture;
use crate::failure::Failure;

/// Draws what a definition asks for beside its curves. None: the rows do not have it.
pub fn picture(analysis: &Analysis, experiment: &Experiment, picture: &Picture) -> Result<Option<Figure>, Failure> {
    match picture {
        Picture::HeatMap { metric, across, up } => heat_map::heat_map(analysis, experiment, metric, across, up),
        Picture::Tail { histogram, label } => tail::tail(analysis, experiment, histogram, label),
        Picture::Stack { series } => stack::stack(analysis, experiment, series),
        Picture::IsoPerformance { metric, bytes } => iso::iso(analysis, experiment, metric, bytes),
        Picture::Occupancy => occupancy::occupancy(analysis, experiment),
    }
}
