//! Axes, and panels made of two.

use super::super::number;
use super::canvas::{Area, Drawn, INK, line, text};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// An axis: values to places between 0 and 1.
#[derive(Clone, Copy)]
pub struct Axis {
    /// Least value shown.
    pub low: f64,
    /// Greatest value shown.
    pub high: f64,
    /// Whether it is logarithmic.
    pub log: bool,
    /// Whether a logarithmic axis has a strip for 0.
    pub zero: bool,
}

/// Part of a logarithmic axis that is kept for 0.
const ZERO_STRIP: f64 = 0.1;

impl Axis {
    /// An axis that shows these values with some room around.
    pub fn around(values: &[f64], log: bool) -> Axis {
        let positive = values.iter().copied().filter(|value| !log || *value > 0.0);
        let (low, high) = positive.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        if log {
            let room = if high / low > 1.5 { (high / low).powf(0.08) } else { 2.0 };
            Axis { low: low / room, high: high * room, log, zero: values.iter().any(|value| *value <= 0.0) }
        } else {
            Axis { low: low - (high - low) * 0.08, high: high + high.abs() * 0.08, log, zero: false }
        }
    }

    /// The place of a value.
    pub fn place(&self, value: f64) -> f64 {
        if !self.log {
            return (value - self.low) / (self.high - self.low);
        }
        let strip = if self.zero { ZERO_STRIP } else { 0.0 };
        if value <= 0.0 { 0.0 } else { strip + (1.0 - strip) * (value / self.low).ln() / (self.high / self.low).ln() }
    }

    /// Values to mark that are round in binary, for bytes.
    pub fn binary_ticks(&self) -> Vec<f64> {
        if !self.log {
            let step = 2f64.powf(((self.high - self.low) / 6.0).log2().ceil());
            let first = (self.low / step).ceil() as i64;
            return (first..).map(|index| index as f64 * step).take_while(|tick| *tick <= self.high).collect();
        }
        let step = match self.high / self.low {
            narrow if narrow < 64.0 => 2f64,
            wide if wide < 65536.0 => 4f64,
            _ => 16f64,
        };
        let powers = (0..).map(|power| step.powi(power)).take_while(|tick| *tick <= self.high);
        let zero = self.zero.then_some(0.0);
        zero.into_iter().chain(powers.filter(|tick| *tick >= self.low)).collect()
    }

    /// Every other of the ticks if there are more than fit.
    pub fn few_ticks(&self) -> Vec<f64> {
        let ticks = self.ticks();
        let step = ticks.len().div_ceil(5).max(1);
        ticks.into_iter().step_by(step).collect()
    }

    /// The same of those that are round in binary.
    pub fn few_binary_ticks(&self) -> Vec<f64> {
        let ticks = self.binary_ticks();
        let step = ticks.len().div_ceil(5).max(1);
        ticks.into_iter().step_by(step).collect()
    }

    /// Round values to mark, not more than eight or so.
    pub fn ticks(&self) -> Vec<f64> {
        if !self.log {
            let raw = (self.high - self.low) / 5.0;
            let decade = 10f64.powf(raw.log10().floor());
            let step =
                [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= raw).unwrap_or(raw);
            let first = (self.low / step).ceil() as i64;
            return (first..).map(|index| index as f64 * step).take_while(|tick| *tick <= self.high).collect();
        }
        let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let wide = (self.high / self.low).log10() > 2.5;
        let steps: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let ticks = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
        let shown: Vec<_> = ticks.filter(|tick| (self.low..=self.high).contains(tick)).collect();
        if shown.len() < 3 && self.high / self.low < 10.0 {
            // Less than a decade: round powers are too far apart to read a value by.
            let linear = Axis { log: false, zero: false, ..*self }.ticks();
            return self.zero.then_some(0.0).into_iter().chain(linear).collect();
        }
        self.zero.then_some(0.0).into_iter().chain(shown).collect()
    }
}

/// Axes on a part of the drawing.
pub struct Panel {
    /// Left edge.
    pub left: i32,
    /// Upper edge.
    pub top: i32,
    /// Width.
    pub width: i32,
    /// Height.
    pub height: i32,
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
}

impl Panel {
    /// Where a point is in the drawing.
    pub fn place(&self, x: f64, y: f64) -> (i32, i32) {
        let right = self.x.place(x) * f64::from(self.width);
        let up = self.y.place(y) * f64::from(self.height);
        (self.left + right.round() as i32, self.top + self.height - up.round() as i32)
    }

    /// Draws axes, ticks and labels.
    pub fn frame(
        &self,
        area: &Area,
        title: &str,
        (x_label, x_ticks): (&str, &[f64]),
        y_ticks: &[f64],
        y_text: impl Fn(f64) -> String,
    ) -> Drawn {
        self.frame_with(area, title, (x_label, x_ticks), y_ticks, y_text, number::tick)
    }

    /// The same with words for the ticks of the horizontal axis.
    pub fn frame_with(
        &self,
        area: &Area,
        title: &str,
        (x_label, x_ticks): (&str, &[f64]),
        y_ticks: &[f64],
        y_text: impl Fn(f64) -> String,
        x_text: impl Fn(f64) -> String,
    ) -> Drawn {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        for tick in y_ticks {
            let y = self.place(self.x.low, *tick).1;
            line(area, &[(self.left, y), (right, y)], INK.mix(0.13), 1)?;
            text(area, &y_text(*tick), (self.left - 8, y), HPos::Right, VPos::Center)?;
        }
        for tick in x_ticks {
            let x = self.place(*tick, self.y.low).0;
            line(area, &[(x, bottom), (x, bottom + 5)], INK.mix(0.6), 1)?;
            text(area, &x_text(*tick), (x, bottom + 8), HPos::Center, VPos::Top)?;
        }
        line(area, &[(self.left, self.top), (self.left, bottom), (right, bottom)], INK.mix(0.6), 1)?;
        text(area, title, (self.left, self.top - 14), HPos::Left, VPos::Center)?;
        text(area, x_label, (self.left + self.width / 2, bottom + 30), HPos::Center, VPos::Top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_a_place_of_its_own_on_a_log_axis() {
        let axis = Axis::around(&[0.0, 10.0, 1000.0], true);
        assert_eq!(axis.place(0.0), 0.0);
        assert!(axis.place(10.0) > ZERO_STRIP);
        assert_eq!(axis.ticks()[0], 0.0);
    }

    #[test]
    fn a_narrow_log_axis_has_ticks_to_read_by() {
        let ticks = Axis::around(&[17e6, 23e6], true).ticks();
        assert!((3..=8).contains(&ticks.len()), "{ticks:?}");
    }
}
