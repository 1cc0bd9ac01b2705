// What may be chosen when perseq is built: the page, the size classes and the budgets of the tiers.
// Used by the build script, and by the test that looks at its errors.

use std::fmt::Write;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Everything, validated. Bytes unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What reports call it.
    pub name: String,
    pub page_size: usize,
    /// Objects.
    pub max_batch: usize,
    pub batch_bytes: usize,
    pub cache_bytes: usize,
    pub list_share: usize,
    /// Slots.
    pub max_list_words: usize,
    /// Batches.
    pub transfer_batches: usize,
    pub transfer_bytes: usize,
    pub grow_bytes: usize,
    pub classes: Vec<Class>,
}

/// A size class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    pub size: usize,
    pub pages: usize,
    pub batch: usize,
}

/// Numbers that a file may set: their names, defaults, limits, and whether they are powers of two.
const NUMBERS: [(&str, usize, usize, usize, bool); 10] = [
    ("page_size", 8 << 10, 4 << 10, 1 << 20, true),
    ("max_small", 32 << 10, 1 << 10, 256 << 10, true),
    ("max_batch", 64, 2, 512, false),
    ("batch_bytes", 16 << 10, 1, 1 << 20, false),
    ("cache_bytes", 1 << 20, 1, 1 << 40, false),
    ("list_share", 2, 1, 1 << 10, false),
    ("max_list_words", 16384, 8, 1 << 16, true),
    ("transfer_batches", 16, 2, 1 << 12, false),
    ("transfer_bytes", 128 << 10, 1, 1 << 30, false),
    ("grow_bytes", 4 << 20, 1 << 20, 1 << 30, true),
];

/// Most classes: a class is a byte, with two values to spare.
const MAX_CLASSES: usize = 254;
/// Up to here sizes are multiples of 8 and looked up by steps of 8, above by steps of 128.
const FINE: usize = 1024;
/// Largest span, and the bits of the reciprocal by which an object's number in it is found.
const MAX_SPAN: usize = 16 << 20;
const RECIPROCAL_BITS: u32 = 40;

impl Config {
    /// Reads a file's text. An error names the line, the entry, and what was expected.
    pub fn parse(text: &str) -> Result<Config, String> {
        let file = File { text };
        let table = DeTable::parse(text).map_err(|error| {
            let place = error.span().map_or(0, |span| span.start);
            file.error(place, "TOML", error.message())
        })?;
        file.config(table.get_ref())
    }

    /// The constants, as Rust.
    pub fn to_rust(&self) -> String {
        let mut rust = format!("pub const NAME: &str = {:?};\n", self.name);
        for (name, value) in [
            ("PAGE_SIZE", self.page_size),
            ("MAX_BATCH", self.max_batch),
            ("CACHE_BYTES", self.cache_bytes),
            ("LIST_SHARE", self.list_share),
            ("MAX_LIST_WORDS", self.max_list_words),
            ("TRANSFER_BATCHES", self.transfer_batches),
            ("TRANSFER_BYTES", self.transfer_bytes),
            ("GROW_BYTES", self.grow_bytes),
        ] {
            writeln!(rust, "pub const {name}: usize = {value};").expect("a string");
        }
        writeln!(rust, "/// Size, pages and batch of each class.").expect("a string");
        writeln!(rust, "pub const CLASSES: [(u32, u32, u32); {}] = [", self.classes.len()).expect("a string");
        for Class { size, pages, batch } in &self.classes {
            writeln!(rust, "    ({size}, {pages}, {batch}),").expect("a string");
        }
        rust + "];\n"
    }
}

/// Steps of 8 bytes to 64, of 16 to 128, then four to a doubling: a request wastes at most a fifth of its object
/// above 128 bytes.
fn default_sizes(max_small: usize) -> Vec<usize> {
    let step = |size: usize| match size {
        ..64 => 8,
        64..128 => 16,
        _ => (1 << size.ilog2()) / 4,
    };
    std::iter::successors(Some(8), |size| Some(size + step(*size))).take_while(|size| *size <= max_small).collect()
}

/// Fewest pages that waste at most a sixteenth of the span and hold enough objects.
///
/// One object that stays keeps its whole span, and a longer span needs a longer run of free pages: so a span is not
/// longer than it has to be. Eight objects up to 1 KiB, which fit a page of 8 KiB. Above, four: fewer would keep still
/// less, but the page heap would be asked for nearly each object.
fn default_pages(size: usize, page_size: usize) -> usize {
    let enough = if size <= 1024 { 8 } else { 4 };
    let suits = |pages: &usize| {
        let bytes = pages * page_size;
        bytes / size >= enough && (bytes % size) * 16 <= bytes
    };
    (1..).find(suits).expect("more pages waste less")
}

struct File<'a> {
    text: &'a str,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl File<'_> {
    fn config(&self, table: &DeTable<'_>) -> Result<Config, String> {
        for (key, _) in table {
            let known = |name: &str| name == key.get_ref().as_ref();
            if !NUMBERS.iter().any(|(name, ..)| known(name)) && !["name", "sizes", "class"].into_iter().any(known) {
                let names: Vec<_> = NUMBERS.iter().map(|(name, ..)| *name).collect();
                let names = names.join(", ");
                return Err(self.error(
                    key.span().start,
                    key.get_ref(),
                    &format!("expected name, sizes, class, {names}"),
                ));
            }
        }
        let number = |name: &str| {
            let (_, default, least, most, power) = NUMBERS.iter().find(|number| number.0 == name).expect("a number");
            match table.get(name) {
                Some(value) => self.number(name, value, *least, *most, *power),
                None => Ok(*default),
            }
        };
        let (page_size, max_small, max_batch) = (number("page_size")?, number("max_small")?, number("max_batch")?);
        let batch_bytes = number("batch_bytes")?;
        let class = |size| Class {
            size,
            pages: default_pages(size, page_size),
            batch: (batch_bytes / size).clamp(2, max_batch),
        };
        let classes = match (table.get("sizes"), table.get("class")) {
            (Some(_), Some(other)) => {
                return Err(self.error(other.span().start, "class", "expected either sizes or class, not both"));
            }
            (None, None) => default_sizes(max_small).into_iter().map(|size| (0, class(size))).collect(),
            (Some(sizes), None) => {
                let list = self.array("sizes", sizes)?;
                let size = |value: &Value<'_>| Ok((value.span().start, class(self.size("sizes", value)?)));
                list.iter().map(size).collect::<Result<Vec<_>, String>>()?
            }
            (None, Some(tables)) => {
                let list = self.array("class", tables)?;
                list.iter().map(|value| self.class(value, &class)).collect::<Result<Vec<_>, String>>()?
            }
        };
        if let (Some(value), true) =
            (table.get("max_small"), table.contains_key("sizes") || table.contains_key("class"))
        {
            return Err(self.error(
                value.span().start,
                "max_small",
                "expected without sizes or class, whose last it is",
            ));
        }
        self.check(&classes, page_size, max_batch)?;
        let name = match table.get("name") {
            Some(value) => {
                let name = value.get_ref().as_str().filter(|name| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                });
                let expected = "expected a string of letters, digits, -, _ and .";
                name.ok_or_else(|| self.error(value.span().start, "name", expected))?.to_owned()
            }
            None => "unnamed".to_owned(),
        };
        Ok(Config {
            name,
            page_size,
            max_batch,
            batch_bytes,
            cache_bytes: number("cache_bytes")?,
            list_share: number("list_share")?,
            max_list_words: number("max_list_words")?,
            transfer_batches: number("transfer_batches")?,
            transfer_bytes: number("transfer_bytes")?,
            grow_bytes: number("grow_bytes")?,
            classes: classes.into_iter().map(|(_, class)| class).collect(),
        })
    }

    /// What classes must be for the tables and the spans to be right. Each comes with its place in the text.
    fn check(&self, classes: &[(usize, Class)], page_size: usize, max_batch: usize) -> Result<(), String> {
        let (Some(first), Some(last)) = (classes.first(), classes.last()) else {
            return Err("sizes: expected at least one".into());
        };
        if classes.len() > MAX_CLASSES {
            return Err(self.error(
                first.0,
                "sizes",
                &format!("expected at most {MAX_CLASSES}, found {}", classes.len()),
            ));
        }
        if last.1.size < FINE {
            return Err(self.error(
                last.0,
                &last.1.size.to_string(),
                &format!("expected the last size to be {FINE} or more"),
            ));
        }
        let mut below = 0;
        for (place, Class { size, pages, batch }) in classes {
            let wrong = |expected: String| Err(self.error(*place, &format!("class of {size} bytes"), &expected));
            if *size <= below {
                return wrong(format!("expected more than the size before, {below}"));
            }
            let span = pages * page_size;
            if span < *size || span > MAX_SPAN {
                return wrong(format!(
                    "{pages} pages of {page_size} bytes: expected at least the size and at most {MAX_SPAN} bytes"
                ));
            }
            if (span as u64 - 1) * (*size as u64 - 1) >= 1 << RECIPROCAL_BITS {
                return wrong(format!("expected a smaller span than {span} bytes"));
            }
            if span / size > u16::MAX as usize {
                return wrong(format!("{} objects in a span: expected at most {}", span / size, u16::MAX));
            }
            if *batch > max_batch {
                return wrong(format!("batch {batch}: expected at most max_batch, {max_batch}"));
            }
            below = *size;
        }
        Ok(())
    }

    fn class(&self, value: &Value<'_>, default: &dyn Fn(usize) -> Class) -> Result<(usize, Class), String> {
        let Some(entry) = value.get_ref().as_table() else {
            return Err(self.error(value.span().start, "class", "expected tables, [[class]]"));
        };
        for (key, _) in entry {
            if !["size", "pages", "batch"].contains(&key.get_ref().as_ref()) {
                return Err(self.error(key.span().start, key.get_ref(), "expected size, pages and batch"));
            }
        }
        let Some(size) = entry.get("size") else {
            return Err(self.error(value.span().start, "class", "expected a size"));
        };
        let place = size.span().start;
        let mut class = default(self.size("size", size)?);
        if let Some(pages) = entry.get("pages") {
            class.pages = self.number("pages", pages, 1, MAX_SPAN, false)?;
        }
        if let Some(batch) = entry.get("batch") {
            class.batch = self.number("batch", batch, 1, usize::MAX, false)?;
        }
        Ok((place, class))
    }

    /// A size that the lookup table can tell from its neighbours.
    fn size(&self, name: &str, value: &Value<'_>) -> Result<usize, String> {
        let size = self.number(name, value, 8, 256 << 10, false)?;
        let step = if size <= FINE { 8 } else { 128 };
        if size % step != 0 {
            let expected = format!("expected a multiple of {step}: of 8 up to {FINE}, of 128 above");
            return Err(self.error(value.span().start, &size.to_string(), &expected));
        }
        Ok(size)
    }

    fn number(&self, name: &str, value: &Value<'_>, least: usize, most: usize, power: bool) -> Result<usize, String> {
        let integer = value.get_ref().as_integer();
        let number =
            integer.and_then(|number| usize::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok());
        let fits = |number: &usize| (least..=most).contains(number) && (!power || number.is_power_of_two());
        number.filter(fits).ok_or_else(|| {
            let what = if power { "a power of two" } else { "a whole number" };
            let most = if most == usize::MAX { String::new() } else { format!(" to {most}") };
            self.error(value.span().start, name, &format!("expected {what} from {least}{most}"))
        })
    }

    fn array<'v, 'i>(&self, name: &str, value: &'v Value<'i>) -> Result<&'v toml::de::DeArray<'i>, String> {
        let array = value.get_ref().as_array();
        array.ok_or_else(|| self.error(value.span().start, name, "expected a list"))
    }

    fn error(&self, place: usize, what: &str, expected: &str) -> String {
        let line = self.text[..place.min(self.text.len())].matches('\n').count() + 1;
        format!("line {line}: {what}: {expected}")
    }
}
