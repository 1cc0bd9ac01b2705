//! One number of the table.

/// What was measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measured {
    /// The number.
    pub number: f64,
    /// The number is at least this: measuring ended here.
    pub at_least: bool,
}

/// It, or the reason why there is none.
pub type Number = Result<Measured, String>;

impl Measured {
    /// A number as it is.
    pub fn exactly(number: f64) -> Measured {
        Measured { number, at_least: false }
    }

    /// For comparisons: what only is known to be large is larger than everything that is known.
    pub fn bound(self) -> f64 {
        if self.at_least { f64::INFINITY } else { self.number }
    }

    /// As many digits as say something.
    pub fn text(self) -> String {
        let Measured { number, at_least } = self;
        let digits = if number.fract() == 0.0 || number >= 100.0 { 0 } else { 1 };
        format!("{}{number:.digits$}", if at_least { "at least " } else { "" })
    }
}
