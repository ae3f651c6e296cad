//! Line plots as inline SVG. Colours and type are the page's style sheet's, so that one picture serves light and dark.

use std::fmt::Write;

use super::scale::{Axis, grouped, is_drawable, number};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Points of a drawn line at most; more than a screen has columns.
const MOST_POINTS: usize = 1000;
/// Measures up to this many are drawn as dots.
const MOST_DOTS: usize = 60;

/// One quantity over the steps of a run.
pub(crate) struct Plot<'a> {
    /// Heading, without the unit.
    pub title: &'a str,
    pub unit: &'a str,
    /// `(step, value)` in order; what is not finite is left out and said.
    pub points: Vec<(u64, f64)>,
    /// The axis begins at 0.
    pub from_zero: bool,
    /// A mean over the last so many values, drawn above them.
    pub smoothed_over: Option<usize>,
    /// Measured seldom: a dot each.
    pub dots: bool,
    /// A level to compare with, and its name.
    pub level: Option<(&'a str, f64)>,
    /// What else to say below.
    pub remark: String,
}

/// The figure: heading, picture, legend. `last_step` is the end of the axis, the same for all plots of a page.
pub(crate) fn figure(plot: &Plot<'_>, last_step: u64) -> String {
    let drawn: Vec<(u64, f64)> = plot.points.iter().copied().filter(|(_, value)| is_drawable(*value)).collect();
    let left_out = plot.points.len() - drawn.len();
    let level = plot.level.filter(|(_, value)| is_drawable(*value));
    let zero = plot.from_zero.then_some(0.0);
    let values = drawn.iter().map(|(_, value)| *value).chain(level.map(|(_, value)| value)).chain(zero);
    let (x, y) = (Axis::counting(last_step, 8), Axis::around(values, 5));
    let at = |step: f64, value: f64| {
        (LEFT + x.share(step) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM))
    };

    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} by step\">\n", plot.title);
    // An axis around nothing has no numbers to tell.
    for &tick in y.ticks.iter().filter(|_| !drawn.is_empty() || level.is_some()) {
        let (_, top) = at(0.0, tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{top:.1}\" x2=\"{:.1}\" y2=\"{top:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            top + 4.5,
            y.label(tick)
        );
    }
    let floor = HEIGHT - BOTTOM;
    let _ =
        writeln!(svg, "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{floor}\" x2=\"{:.1}\" y2=\"{floor}\"/>", WIDTH - RIGHT);
    for &tick in &x.ticks {
        let (left, _) = at(tick, y.low);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{left:.1}\" y1=\"{floor}\" x2=\"{left:.1}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
            floor + 5.0,
            floor + 19.0,
            x.label(tick)
        );
    }
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    let _ = writeln!(
        svg,
        "<text class=\"name\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">step</text>",
        HEIGHT - 7.0
    );

    if let Some((_, value)) = level {
        let (_, top) = at(0.0, value);
        let _ = writeln!(
            svg,
            "<line class=\"level\" x1=\"{LEFT}\" y1=\"{top:.1}\" x2=\"{:.1}\" y2=\"{top:.1}\"/>",
            WIDTH - RIGHT
        );
    }
    let mut line = |class: &str, points: &[(u64, f64)]| {
        let points: Vec<(f64, f64)> = thinned(points).into_iter().map(|(step, value)| at(step as f64, value)).collect();
        if let [(left, top)] = points[..] {
            let _ = writeln!(svg, "<circle class=\"dot\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"4\"/>");
            return;
        }
        let points: Vec<String> = points.iter().map(|(left, top)| format!("{left:.1},{top:.1}")).collect();
        let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
    };
    match plot.smoothed_over {
        Some(count) if drawn.len() > count => {
            line("faint", &drawn);
            line("line", &trailing_mean(&drawn, count));
        }
        _ if !drawn.is_empty() => line("line", &drawn),
        _ => {}
    }
    if plot.dots && (2..=MOST_DOTS).contains(&drawn.len()) {
        for (step, value) in &drawn {
            let (left, top) = at(*step as f64, *value);
            let _ = writeln!(
                svg,
                "<circle class=\"dot\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"4\"><title>step {step}: {}</title></circle>",
                number(*value)
            );
        }
    }
    if drawn.is_empty() {
        let _ = writeln!(
            svg,
            "<text class=\"name\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">nothing measured yet</text>",
            (TOP + floor) / 2.0
        );
    }
    svg.push_str("</svg>");

    let unit = if plot.unit.is_empty() { String::new() } else { format!(" <span class=\"unit\">{}</span>", plot.unit) };
    format!(
        "<figure>\n<h3>{}{unit}</h3>\n{svg}\n<figcaption>{}</figcaption>\n</figure>\n",
        plot.title,
        legend(plot, drawn.len(), left_out)
    )
}

fn legend(plot: &Plot<'_>, drawn: usize, left_out: usize) -> String {
    let mut parts = Vec::new();
    if let Some(count) = plot.smoothed_over.filter(|count| drawn > *count) {
        parts.push("<span class=\"key faint\"></span>each step".to_owned());
        parts.push(format!("<span class=\"key\"></span>mean of the last {count}"));
    }
    if let Some((name, value)) = plot.level {
        parts.push(format!("<span class=\"key level\"></span>{name} {}", number(value)));
    }
    if !plot.remark.is_empty() {
        parts.push(plot.remark.clone());
    }
    if left_out > 0 {
        parts.push(format!(
            "<strong>{left_out} of {} not finite or too large to draw</strong>",
            grouped(plot.points.len() as f64, 0)
        ));
    }
    parts.into_iter().map(|part| format!("<span>{part}</span>")).collect::<Vec<_>>().join(" ")
}

/// The mean of each value and those before it, `count` in all.
fn trailing_mean(points: &[(u64, f64)], count: usize) -> Vec<(u64, f64)> {
    let mean = |at: usize| {
        let window = &points[(at + 1).saturating_sub(count)..=at];
        // Each part by itself, so that a sum of large values stays a number.
        window.iter().map(|(_, value)| value / window.len() as f64).sum()
    };
    (0..points.len()).map(|at| (points[at].0, mean(at))).collect()
}

/// No more than [`MOST_POINTS`]: first, last, lowest and highest of each stretch, so that no spike is lost.
fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 4);
    let mut kept = Vec::new();
    for points in points.chunks(stretch) {
        let by_value = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
        let extremes = [points.first(), points.iter().min_by(by_value), points.iter().max_by(by_value), points.last()];
        let mut extremes: Vec<(u64, f64)> = extremes.into_iter().flatten().copied().collect();
        extremes.sort_by_key(|(step, _)| *step);
        extremes.dedup_by_key(|(step, _)| *step);
        kept.extend(extremes);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(u64, f64)>) -> Plot<'static> {
        let level = Some(("base", 34.8));
        Plot {
            title: "Loss",
            unit: "nats",
            points,
            from_zero: false,
            smoothed_over: Some(10),
            dots: true,
            level,
            remark: String::new(),
        }
    }

    /// The numbers of an attribute, wherever it stands.
    fn attribute(svg: &str, name: &str) -> Vec<f64> {
        let pattern = format!(" {name}=\"");
        let values = svg.match_indices(&pattern).map(|(at, _)| svg[at + pattern.len()..].split('"').next().unwrap());
        values.flat_map(|value| value.split([' ', ',']).map(|number| number.parse().unwrap())).collect()
    }

    #[test]
    fn everything_drawn_lies_inside_the_picture() {
        let check = |points: Vec<(u64, f64)>, last_step: u64| {
            let svg = figure(&plot(points), last_step);
            let points = attribute(&svg, "points");
            let (across, down) = (["x", "x1", "x2", "cx"], ["y", "y1", "y2", "cy"]);
            let xs = across.iter().flat_map(|name| attribute(&svg, name)).chain(points.iter().copied().step_by(2));
            let ys =
                down.iter().flat_map(|name| attribute(&svg, name)).chain(points.iter().copied().skip(1).step_by(2));
            let (xs, ys): (Vec<f64>, Vec<f64>) = (xs.collect(), ys.collect());
            assert!(xs.len() > 8 && ys.len() > 8, "{svg}");
            assert!(xs.iter().all(|x| (0.0..=WIDTH).contains(x)), "{xs:?}");
            assert!(ys.iter().all(|y| (0.0..=HEIGHT).contains(y)), "{ys:?}");
            // Labels below are centred at ticks.
            for label in svg.split("class=\"tick\" text-anchor=\"middle\"").skip(1) {
                let text = label.split(['>', '<']).nth(1).unwrap();
                assert!(attribute(label, "x")[0] + text.len() as f64 * 7.5 / 2.0 <= WIDTH, "{text}");
            }
            // Labels of the left axis end 8 before it; a digit is less than 7.5 wide at 13 units.
            for label in svg.split("text-anchor=\"end\"").skip(1) {
                let text = label.split(['>', '<']).nth(1).unwrap();
                assert!(text.len() as f64 * 7.5 <= LEFT - 8.0, "{text}");
            }
        };
        check(vec![], 0);
        check(vec![(1, 3.5)], 1);
        check((1..=211).map(|step| (step, 3.5 - step as f64 / 200.0)).collect(), 211);
        check((1..=10_000).map(|step| (step, (step as f64).sin() * 1e5)).collect(), 10_000);
        check(vec![(1, f64::NAN), (2, f64::INFINITY)], 2);
        check(vec![(1, 1e300), (2, -1e300), (3, f64::NEG_INFINITY)], 3);
        check(vec![(1, 1e-300), (2, 5e-324)], 3);
        check(vec![(1, 3e-4), (2, 2.5e-4)], 3);
    }

    #[test]
    fn long_runs_keep_their_spikes() {
        let mut points: Vec<(u64, f64)> = (1..=10_000).map(|step| (step, 2.0 + (step as f64).sin())).collect();
        points[4_321].1 = 40.0;
        points[8_765].1 = -7.0;
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS && thin.len() > MOST_POINTS / 2, "{}", thin.len());
        assert!(thin.is_sorted_by_key(|(step, _)| *step));
        for at in [0, 4_321, 8_765, 9_999] {
            assert!(thin.contains(&points[at]), "{:?}", points[at]);
        }
        assert_eq!(thinned(&points[..MOST_POINTS]), points[..MOST_POINTS]);
        assert!(thinned(&points[..=MOST_POINTS]).len() <= MOST_POINTS);
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let svg = figure(&plot(vec![(1, 2.0), (2, f64::NAN), (3, 2.5)]), 3);
        assert!(svg.contains("1 of 3 not finite") && !svg.contains("NaN"), "{svg}");
        assert!(figure(&plot(vec![]), 3).contains("nothing measured yet"));
    }

    #[test]
    fn means_look_back() {
        let points = [(1, 1.0), (2, 3.0), (3, 5.0), (4, 7.0)];
        assert_eq!(trailing_mean(&points, 2), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 6.0)]);
        assert!(trailing_mean(&[(1, 1e300); 9], 9).iter().all(|(_, mean)| mean.is_finite()));
    }
}
