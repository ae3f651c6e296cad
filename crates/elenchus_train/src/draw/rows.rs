//! One row for each voice, one axis for all: intervals and lengths as inline SVG.

use std::fmt::Write;

use super::{
    escaped,
    scale::{Axis, is_drawable, number},
};

const WIDTH: f64 = 640.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 44.0;
const ROW: f64 = 30.0;
/// Letters of a name at most; about 7.5 wide each.
const MOST_LETTERS: usize = 23;

/// The result of one voice.
pub struct Drawn {
    /// What stands before it.
    pub name: String,
    /// Where its line begins.
    pub low: f64,
    /// Where its dot is.
    pub value: f64,
    /// Where its line ends.
    pub high: f64,
    /// A box within, for a distribution.
    pub middle: Option<(f64, f64)>,
}

/// The figure; `level` is what others are held to, by name.
pub fn figure(title: &str, unit: &str, rows: &[Drawn], level: Option<(&str, f64)>) -> String {
    let drawn: Vec<&Drawn> =
        rows.iter().filter(|row| [row.low, row.value, row.high].into_iter().all(is_drawable)).collect();
    let values = drawn.iter().flat_map(|row| [row.low, row.high]).chain(level.map(|(_, value)| value));
    let axis = Axis::around(values, 6);
    let x = |value: f64| LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT);
    let floor = TOP + ROW * drawn.len() as f64;
    let height = floor + BOTTOM;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{} of each voice\">\n",
        escaped(title)
    );
    for &tick in &axis.ticks {
        let left = x(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{TOP}\" x2=\"{left:.1}\" y2=\"{floor}\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
            floor + 18.0,
            axis.label(tick)
        );
    }
    let _ =
        writeln!(svg, "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{floor}\" x2=\"{:.1}\" y2=\"{floor}\"/>", WIDTH - RIGHT);
    let _ = writeln!(
        svg,
        "<text class=\"name\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        height - 7.0,
        escaped(unit)
    );
    if let Some((_, value)) = level.filter(|(_, value)| is_drawable(*value)) {
        let left = x(value);
        let _ = writeln!(svg, "<line class=\"level\" x1=\"{left:.1}\" y1=\"{TOP}\" x2=\"{left:.1}\" y2=\"{floor}\"/>");
    }
    for (at, row) in drawn.iter().enumerate() {
        let y = TOP + ROW * (at as f64 + 0.5);
        let (low, value, high) = (x(row.low), x(row.value), x(row.high));
        let mut name: String = row.name.chars().take(MOST_LETTERS).collect();
        if row.name.chars().nth(MOST_LETTERS).is_some() {
            name.pop();
            name.push('…');
        }
        let _ = write!(
            svg,
            "<g><title>{}: {} ({} to {})</title>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <line class=\"line\" stroke-width=\"2\" x1=\"{low:.1}\" y1=\"{y:.1}\" x2=\"{high:.1}\" y2=\"{y:.1}\"/>",
            escaped(&row.name),
            number(row.value),
            number(row.low),
            number(row.high),
            LEFT - 10.0,
            y + 4.5,
            escaped(&name)
        );
        if let Some((from, to)) = row.middle {
            let _ = write!(
                svg,
                "<line class=\"faint\" style=\"stroke-width:12\" x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>",
                x(from),
                x(to)
            );
        }
        let _ = writeln!(svg, "<circle class=\"dot\" cx=\"{value:.1}\" cy=\"{y:.1}\" r=\"5\"/></g>");
    }
    svg.push_str("</svg>");
    let mut legend = match level {
        Some((name, value)) => {
            format!("<span><span class=\"key level\"></span>{} {}</span>", escaped(name), number(value))
        }
        None => String::new(),
    };
    if drawn.len() < rows.len() {
        let _ = write!(legend, "<strong>{} of {} not finite</strong>", rows.len() - drawn.len(), rows.len());
    }
    format!("<figure>\n<h3>{}</h3>\n{svg}\n<figcaption>{legend}</figcaption>\n</figure>\n", escaped(title))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, low: f64, value: f64, high: f64) -> Drawn {
        Drawn { name: name.to_owned(), low, value, high, middle: Some((low, value)) }
    }

    #[test]
    fn everything_drawn_lies_inside_the_picture() {
        let check = |rows: &[Drawn], level: Option<(&str, f64)>| {
            let svg = figure("A < B", "nats", rows, level);
            assert!(svg.contains("A &lt; B") && !svg.contains("NaN"), "{svg}");
            for name in [" x=\"", " x1=\"", " x2=\"", " cx=\""] {
                for value in svg.split(name).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                    let value: f64 = value.parse().unwrap();
                    assert!((0.0..=WIDTH).contains(&value), "{value} in {svg}");
                }
            }
        };
        check(&[row("sft", 0.1, 0.2, 0.4), row("rl", -3.0, 0.5, 9.0)], Some(("sft", 0.2)));
        check(&[row("sft", 1.0, 1.0, 1.0)], Some(("sft", 40.0)));
        check(&[], None);
    }

    #[test]
    fn long_names_are_cut_and_what_cannot_be_drawn_is_said() {
        let rows = [row(&"n".repeat(40), 0.0, 1.0, 2.0), row("x", f64::NAN, 1.0, 2.0)];
        let svg = figure("", "", &rows, None);
        assert!(svg.contains(&format!(">{}…<", "n".repeat(22))) && svg.contains("1 of 2 not finite"), "{svg}");
    }
}
