//! Charts as PNG, drawn here: no display, no fonts of the system.

use std::io;

use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, Transform};
use ttf_parser::{Face, OutlineBuilder};

use super::chart::{Chart, Marks, range, round_step};
use crate::number::{single, whole_i64, whole_u32};

const WIDTH: f32 = 1000.0;
const HEIGHT: f32 = 600.0;
/// The plotting area.
const LEFT: f32 = 96.0;
const RIGHT: f32 = 972.0;
const TOP: f32 = 56.0;
const BOTTOM: f32 = 528.0;

const INK: [u8; 3] = [0x1d, 0x21, 0x29];
const SOFT: [u8; 3] = [0x66, 0x70, 0x85];
const GRID: [u8; 3] = [0xe4, 0xe6, 0xea];
const LINE: [u8; 3] = [0x1c, 0x6d, 0xd0];
const MARKER: [u8; 3] = [0xd9, 0x48, 0x0f];
/// Points beyond which they are not marked one by one.
const MARKED_POINTS: usize = 200;

/// Draws charts.
pub(super) struct Painter {
    font: Face<'static>,
}

impl Painter {
    pub(super) fn new() -> io::Result<Self> {
        let font = Face::parse(dejavu::sans::regular(), 0).map_err(io::Error::other)?;
        Ok(Self { font })
    }

    /// The file.
    pub(super) fn png(&self, chart: &Chart) -> io::Result<Vec<u8>> {
        let mut canvas = Canvas {
            font: &self.font,
            pixels: Pixmap::new(whole_u32(f64::from(WIDTH)), whole_u32(f64::from(HEIGHT)))
                .ok_or_else(|| io::Error::other("no room for a picture"))?,
        };
        canvas.pixels.fill(Color::WHITE);
        canvas.chart(chart);
        encode(&canvas.pixels)
    }
}

fn encode(pixels: &Pixmap) -> io::Result<Vec<u8>> {
    let mut file = Vec::with_capacity(1 << 16);
    let mut encoder = png::Encoder::new(&mut file, pixels.width(), pixels.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    // Opaque: colours are not multiplied by anything.
    let mut colours = vec![0; pixels.data().len() / 4 * 3];
    for (colour, pixel) in colours
        .chunks_exact_mut(3)
        .zip(pixels.data().chunks_exact(4))
    {
        colour.copy_from_slice(&pixel[..3]);
    }
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer
        .write_image_data(&colours)
        .map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(file)
}

/// From values to pixels along one axis.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    from: f32,
    to: f32,
}

impl Axis {
    /// Over `values`, with some room at the ends; from 0 for bars.
    fn new((low, high): (f64, f64), from: f32, to: f32) -> Self {
        let room = match (high - low) * 0.03 {
            room if room > 0.0 => room,
            _ => low.abs().max(1.0) * 0.1,
        };
        Self {
            low: low - room,
            high: high + room,
            from,
            to,
        }
    }

    fn starting_at(mut self, low: f64) -> Self {
        self.low = low;
        self
    }

    fn at(&self, value: f64) -> f32 {
        let share = (value - self.low) / (self.high - self.low);
        self.from + (self.to - self.from) * single(share)
    }

    /// Round values along it.
    fn ticks(&self, wanted: f64) -> Vec<f64> {
        let step = round_step((self.high - self.low) / wanted);
        let first = whole_i64((self.low / step).ceil());
        let last = whole_i64((self.high / step).floor());
        (first..=last).map(|tick| tick as f64 * step).collect()
    }
}

fn label_of(tick: f64) -> String {
    let size = tick.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{tick:.2e}");
    }
    let text = format!("{tick:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[derive(Debug, Clone, Copy)]
enum Anchor {
    Middle,
    End,
}

struct Canvas<'a> {
    font: &'a Face<'static>,
    pixels: Pixmap,
}

fn paint([red, green, blue]: [u8; 3]) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, 255);
    paint.anti_alias = true;
    paint
}

impl Canvas<'_> {
    fn chart(&mut self, chart: &Chart) {
        let title = chart.name.replace('_', " ");
        let middle = (LEFT + RIGHT) / 2.0;
        self.text(&title, middle, 32.0, 19.0, INK, Anchor::Middle, false);
        match &chart.marks {
            Marks::Line(points) => self.line(points),
            Marks::Histogram(bins) => self.histogram(bins),
            Marks::Bars(bars) => {
                self.bars(bars, &chart.x_label);
                return;
            }
        }
        let (x_label, y_label) = (&chart.x_label, &chart.y_label);
        self.text(x_label, middle, 578.0, 15.0, INK, Anchor::Middle, false);
        let centre = (TOP + BOTTOM) / 2.0;
        self.text(y_label, 24.0, centre, 15.0, INK, Anchor::Middle, true);
    }

    /// Grid and tick labels.
    fn axes(&mut self, x: Axis, y: Axis) {
        for tick in x.ticks(8.0) {
            let at = x.at(tick);
            self.stroke(&[(at, TOP), (at, BOTTOM)], GRID, 1.0);
            let label = label_of(tick);
            self.text(&label, at, BOTTOM + 22.0, 13.0, SOFT, Anchor::Middle, false);
        }
        for tick in y.ticks(6.0) {
            let at = y.at(tick);
            self.stroke(&[(LEFT, at), (RIGHT, at)], GRID, 1.0);
            let label = label_of(tick);
            self.text(&label, LEFT - 9.0, at + 4.5, 13.0, SOFT, Anchor::End, false);
        }
    }

    fn line(&mut self, points: &[(f64, f64)]) {
        let x = Axis::new(range(points.iter().map(|p| p.0)), LEFT, RIGHT);
        let y = Axis::new(range(points.iter().map(|p| p.1)), BOTTOM, TOP);
        self.axes(x, y);
        let places: Vec<(f32, f32)> = (points.iter()).map(|p| (x.at(p.0), y.at(p.1))).collect();
        self.stroke(&places, LINE, 2.0);
        if places.len() > MARKED_POINTS {
            return;
        }
        for (x, y) in places {
            if let Some(dot) = PathBuilder::from_circle(x, y, 2.6) {
                self.fill(&dot, MARKER);
            }
        }
    }

    fn histogram(&mut self, bins: &[(f64, f64, f64)]) {
        let edges = bins.iter().flat_map(|bin| [bin.0, bin.1]);
        let x = Axis::new(range(edges), LEFT, RIGHT);
        let highest = range(bins.iter().map(|bin| bin.2)).1;
        let y = Axis::new((0.0, highest), BOTTOM, TOP).starting_at(0.0);
        self.axes(x, y);
        for &(start, end, count) in bins {
            self.rectangle([x.at(start) + 0.5, y.at(count), x.at(end) - 0.5, BOTTOM]);
        }
    }

    /// Bars lie, so that there is room for their names.
    fn bars(&mut self, bars: &[(String, f64)], label: &str) {
        let left = LEFT + 130.0;
        let highest = range(bars.iter().map(|bar| bar.1)).1;
        let x = Axis::new((0.0, highest), left, RIGHT).starting_at(0.0);
        for tick in x.ticks(6.0) {
            let at = x.at(tick);
            self.stroke(&[(at, TOP), (at, BOTTOM)], GRID, 1.0);
            let text = label_of(tick);
            self.text(&text, at, BOTTOM + 22.0, 13.0, SOFT, Anchor::Middle, false);
        }
        let height = (BOTTOM - TOP) / bars.len().max(1) as f32;
        for (place, (name, value)) in bars.iter().enumerate() {
            let top = TOP + height * place as f32;
            self.rectangle([left, top + height * 0.15, x.at(*value), top + height * 0.85]);
            let size = 12f32.min(height * 0.8);
            let line = top + height / 2.0 + size * 0.36;
            self.text(name, left - 8.0, line, size, SOFT, Anchor::End, false);
        }
        let middle = (left + RIGHT) / 2.0;
        self.text(label, middle, 578.0, 15.0, INK, Anchor::Middle, false);
    }

    fn rectangle(&mut self, [left, top, right, bottom]: [f32; 4]) {
        if let Some(bar) = Rect::from_ltrb(left, top, right, bottom) {
            let pixels = &mut self.pixels;
            pixels.fill_rect(bar, &paint(LINE), Transform::identity(), None);
        }
    }

    fn fill(&mut self, path: &Path, colour: [u8; 3]) {
        let identity = Transform::identity();
        self.pixels
            .fill_path(path, &paint(colour), FillRule::Winding, identity, None);
    }

    fn stroke(&mut self, places: &[(f32, f32)], colour: [u8; 3], width: f32) {
        let mut path = PathBuilder::new();
        for (position, &(x, y)) in places.iter().enumerate() {
            match position {
                0 => path.move_to(x, y),
                _ => path.line_to(x, y),
            }
        }
        let stroke = Stroke {
            width,
            ..Stroke::default()
        };
        if let Some(path) = path.finish() {
            let identity = Transform::identity();
            self.pixels
                .stroke_path(&path, &paint(colour), &stroke, identity, None);
        }
    }

    /// Writes along a line, or from below upward.
    #[expect(clippy::too_many_arguments, reason = "a place, a look and an anchor")]
    fn text(
        &mut self,
        text: &str,
        x: f32,
        y: f32,
        size: f32,
        colour: [u8; 3],
        anchor: Anchor,
        upward: bool,
    ) {
        let scale = size / f32::from(self.font.units_per_em());
        let mut glyphs = Glyphs {
            path: PathBuilder::new(),
            at: 0.0,
        };
        for letter in text.chars() {
            let Some(glyph) = self.font.glyph_index(letter) else {
                continue;
            };
            self.font.outline_glyph(glyph, &mut glyphs);
            glyphs.at += f32::from(self.font.glyph_hor_advance(glyph).unwrap_or(0));
        }
        let width = glyphs.at;
        let Some(path) = glyphs.path.finish() else {
            return;
        };
        let start = match anchor {
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        // Letters are drawn with y upward.
        let mut place = Transform::from_translate(start, 0.0).post_scale(scale, -scale);
        if upward {
            place = place.post_rotate(-90.0);
        }
        place = place.post_translate(x, y);
        self.pixels
            .fill_path(&path, &paint(colour), FillRule::Winding, place, None);
    }
}

/// Outlines of letters, one after the other.
struct Glyphs {
    path: PathBuilder,
    at: f32,
}

impl OutlineBuilder for Glyphs {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.move_to(self.at + x, y);
    }
    fn line_to(&mut self, x: f32, y: f32) {
        self.path.line_to(self.at + x, y);
    }
    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.path.quad_to(self.at + x1, y1, self.at + x, y);
    }
    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let at = self.at;
        self.path.cubic_to(at + x1, y1, at + x2, y2, at + x, y);
    }
    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::new((0.0, 97.0), 0.0, 100.0);
        assert_eq!(axis.ticks(5.0), [0.0, 50.0]);
        assert_eq!(axis.ticks(10.0).len(), 5);
        assert_eq!(label_of(0.05), "0.05");
        assert_eq!(label_of(1500.0), "1500");
        assert_eq!(label_of(0.0), "0");
        assert_eq!(label_of(2.5e-7), "2.50e-7");
        let point = Axis::new((3.0, 3.0), 0.0, 10.0);
        assert!(point.at(3.0) > 4.9 && point.at(3.0) < 5.1);
    }

    #[test]
    fn a_picture_has_a_line_and_letters() {
        let chart = Chart {
            name: "request_e2e_time".into(),
            x_label: "x".into(),
            y_label: "cdf".into(),
            marks: Marks::Line(vec![(0.0, 0.0), (1.0, 1.0)]),
        };
        let png = Painter::new().unwrap().png(&chart).unwrap();
        let decoder = png::Decoder::new(io::Cursor::new(&png));
        let mut reader = decoder.read_info().unwrap();
        let mut colours = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut colours).unwrap();
        let dark = |row: usize| {
            let row = &colours[row * 3000..(row + 1) * 3000];
            row.chunks(3).filter(|p| p[0] < 0x60 && p[2] < 0x60).count()
        };
        assert!((15..40).map(dark).sum::<usize>() > 100, "no title");
        let blue = colours.chunks(3).filter(|pixel| *pixel == LINE).count();
        assert!(blue > 500, "no line: {blue}");
    }
}
