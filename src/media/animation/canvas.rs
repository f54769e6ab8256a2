//! A picture that changes, and what of it changed.
//!
//! The idea: a frame is the difference to the one before, cut to the rectangle that holds it; the pixels
//! of the rectangle that stay are transparent. Both file formats know such frames.

use crate::media::font;

/// Red, green and blue.
pub type Color = [u8; 3];

/// A picture.
#[derive(Clone)]
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    /// Row by row.
    pub pixels: Vec<Color>,
}

/// A rectangle of new pixels; those that stay are `None`.
pub struct Change {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<Option<Color>>,
}

impl Canvas {
    pub fn new(width: usize, height: usize, color: Color) -> Canvas {
        Canvas { width, height, pixels: vec![color; width * height] }
    }

    /// Fills a rectangle, as far as it is inside of the picture.
    pub fn fill(&mut self, [left, top]: [usize; 2], [width, height]: [usize; 2], color: Color) {
        for row in self.pixels.chunks_exact_mut(self.width).skip(top).take(height) {
            row[left.min(self.width)..(left + width).min(self.width)].fill(color);
        }
    }

    /// Writes a line of text in letters of `scale` times the font's size, around the column `middle`.
    pub fn write(&mut self, text: &str, middle: usize, top: usize, scale: usize, color: Color) {
        let left = middle.saturating_sub(text_width(text) * scale / 2);
        for (row, column) in font::dots(text) {
            self.fill([left + scale * column, top + scale * row], [scale; 2], color);
        }
    }

    /// The whole picture as a change of whatever was there.
    pub fn whole(&self) -> Change {
        let pixels = self.pixels.iter().copied().map(Some).collect();
        Change { left: 0, top: 0, width: self.width, height: self.height, pixels }
    }

    /// What differs from the picture `before`, of the same size; if nothing does, a pixel that stays.
    pub fn change(&self, before: &Canvas) -> Change {
        let at = |row: usize, column: usize| row * self.width + column;
        let differs = |at: &usize| self.pixels[*at] != before.pixels[*at];
        let (mut rows, mut columns) = ([usize::MAX, 0], [usize::MAX, 0]);
        for place in (0..self.pixels.len()).filter(differs) {
            for (bounds, at) in [(&mut rows, place / self.width), (&mut columns, place % self.width)] {
                *bounds = [bounds[0].min(at), bounds[1].max(at)];
            }
        }
        if rows[0] > rows[1] {
            (rows, columns) = ([0; 2], [0; 2]);
        }
        let places = (rows[0]..=rows[1]).flat_map(|row| (columns[0]..=columns[1]).map(move |c| at(row, c)));
        let pixels = places.map(|place| differs(&place).then_some(self.pixels[place])).collect();
        let [width, height] = [columns, rows].map(|[first, last]| last - first + 1);
        Change { left: columns[0], top: rows[0], width, height, pixels }
    }
}

/// Columns that a line of text takes, without the space after its last letter.
pub fn text_width(text: &str) -> usize {
    (text.chars().count() * font::ADVANCE).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_the_smallest_rectangle_and_keeps_the_rest_transparent() {
        let before = Canvas::new(5, 4, [0; 3]);
        let mut after = before.clone();
        after.fill([1, 2], [1, 1], [7; 3]);
        after.fill([3, 1], [1, 1], [9; 3]);
        let change = after.change(&before);
        assert_eq!([change.left, change.top, change.width, change.height], [1, 1, 3, 2]);
        let (seven, nine) = (Some([7; 3]), Some([9; 3]));
        assert_eq!(change.pixels, [None, None, nine, seven, None, None]);
        let same = after.change(&after);
        assert_eq!(([same.width, same.height], same.pixels), ([1, 1], vec![None]));
    }

    #[test]
    fn text_stands_around_its_middle() {
        let mut canvas = Canvas::new(40, 20, [255; 3]);
        canvas.write("1i", 20, 2, 2, [0; 3]);
        let dark: Vec<_> = (0..800).filter(|&at| canvas.pixels[at] == [0; 3]).collect();
        // The dots of both letters, each of 2 by 2 pixels.
        assert_eq!(dark.len(), 4 * (10 + 9));
        assert!(dark.iter().all(|at| (2..16).contains(&(at / 40)) && (9..31).contains(&(at % 40))));
        assert_eq!(text_width("1i"), 11);
        // What is too long is cut off.
        canvas.write("100 times faster", 35, 16, 2, [0; 3]);
    }
}
