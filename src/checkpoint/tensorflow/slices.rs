//! Tensors that were saved in parts, as partitioned variables are.
//!
//! The idea: a tensor is a list of boxes, and they make it up exactly if all lie inside it, no two
//! meet and their volumes add up to its own. A tensor saved whole is the list of one.

use super::ordered_code::slice_key;
use crate::checkpoint::fault::Fault;

/// The most slices of one variable. Partitions number some tens, and the comparison of all pairs
/// should stay short for a hostile file too.
const SLICES: usize = 1024;

/// The part of one dimension that a slice takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub start: u64,
    /// `None`: the whole dimension.
    pub length: Option<u64>,
}

/// A slice as a file describes it, one extent for each dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice(pub Vec<Extent>);

impl Slice {
    /// The slice that is the whole of a tensor of `rank` dimensions.
    #[cfg(test)]
    pub fn whole(rank: usize) -> Slice {
        Slice(vec![Extent { start: 0, length: None }; rank])
    }

    /// The key of this slice of tensor `name`. Starts and lengths are int64 in the file.
    pub fn key(&self, name: &str) -> Vec<u8> {
        let extents = self.0.iter();
        slice_key(name, extents.map(|extent| (extent.start as i64, extent.length.map_or(-1, |n| n as i64))))
    }

    /// The box that this slice takes of a tensor of shape `shape`.
    fn region(&self, shape: &[usize]) -> Result<Region, Fault> {
        if self.0.len() != shape.len() {
            let found = format!("{}", self.0.len());
            return Err(Fault::new(format!("slices of {} dimensions", shape.len()), found));
        }
        let mut region =
            Region { start: Vec::with_capacity(shape.len()), size: Vec::with_capacity(shape.len()) };
        for (axis, (extent, &dimension)) in self.0.iter().zip(shape).enumerate() {
            let start = usize::try_from(extent.start).unwrap_or(usize::MAX);
            let size = match extent.length {
                Some(length) => usize::try_from(length).unwrap_or(usize::MAX),
                None => dimension,
            };
            if start.checked_add(size).is_none_or(|end| end > dimension) {
                return Err(Fault::new(
                    format!("slices within the {dimension} of dimension {axis}"),
                    format!("{size} from {start} on"),
                ));
            }
            region.start.push(start);
            region.size.push(size);
        }
        Ok(region)
    }
}

/// A box in a tensor: its first corner and its shape.
#[derive(Debug)]
pub(super) struct Region {
    start: Vec<usize>,
    size: Vec<usize>,
}

impl Region {
    /// The number of values. The region lies in a tensor whose own volume is known not to overflow,
    /// and zeros come first lest the other dimensions of an empty tensor do.
    pub fn volume(&self) -> usize {
        if self.size.contains(&0) { 0 } else { self.size.iter().product() }
    }

    fn meets(&self, other: &Region) -> bool {
        let mut axes = self.start.iter().zip(&self.size).zip(other.start.iter().zip(&other.size));
        axes.all(|((&a, &m), (&b, &n))| a.max(b) < (a + m).min(b + n))
    }

    /// Copies the values of this region, `part`, to their places in `whole` of shape `shape`, both
    /// row-major. A row of the last dimension is contiguous in both.
    pub fn scatter(&self, part: &[f32], shape: &[usize], whole: &mut [f32]) {
        let Some((&row, outer)) = self.size.split_last() else {
            whole.copy_from_slice(part);
            return;
        };
        if part.is_empty() {
            return;
        }
        let mut index = vec![0; outer.len()];
        for values in part.chunks_exact(row) {
            let position = (0..shape.len()).fold(0, |position, axis| {
                position * shape[axis] + self.start[axis] + index.get(axis).copied().unwrap_or(0)
            });
            whole[position..position + row].copy_from_slice(values);
            for axis in (0..outer.len()).rev() {
                index[axis] += 1;
                if index[axis] < outer[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
    }
}

/// The regions of `slices`, which must make up exactly a tensor of shape `shape` with `volume` values.
pub(super) fn cover<'a>(
    slices: impl ExactSizeIterator<Item = &'a Slice>,
    shape: &[usize],
    volume: usize,
) -> Result<Vec<Region>, Fault> {
    if slices.len() > SLICES {
        return Err(Fault::new(format!("at most {SLICES} slices"), slices.len().to_string()));
    }
    let mut regions = Vec::<Region>::with_capacity(slices.len());
    for slice in slices {
        let region = slice.region(shape)?;
        if let Some(other) = regions.iter().find(|other| other.meets(&region)) {
            let found = format!("{other:?} and {region:?}");
            return Err(Fault::new("slices that do not overlap", found));
        }
        regions.push(region);
    }
    let covered: usize = regions.iter().map(Region::volume).sum();
    if covered != volume || regions.is_empty() {
        return Err(Fault::new(
            format!("slices that cover all {volume} values"),
            format!("{} slices of {covered} values", regions.len()),
        ));
    }
    Ok(regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(extents: &[(u64, u64)]) -> Slice {
        let extents = extents.iter().map(|&(start, length)| Extent { start, length: Some(length) });
        Slice(extents.collect())
    }

    #[test]
    fn boxes_of_a_tensor_are_put_in_their_places() {
        let shape = [2, 3, 2];
        let slices = [
            part(&[(0, 1), (0, 2), (0, 2)]),
            part(&[(0, 1), (2, 1), (0, 2)]),
            part(&[(1, 1), (0, 3), (0, 1)]),
            part(&[(1, 1), (0, 3), (1, 1)]),
        ];
        let regions = cover(slices.iter(), &shape, 12).unwrap();
        let parts: [&[f32]; 4] = [&[0., 1., 2., 3.], &[4., 5.], &[6., 8., 10.], &[7., 9., 11.]];
        let mut whole = [f32::NAN; 12];
        for (region, part) in regions.iter().zip(parts) {
            region.scatter(part, &shape, &mut whole);
        }
        assert_eq!(whole, std::array::from_fn(|i| i as f32));
    }

    #[test]
    fn scalars_and_empty_tensors_are_one_slice() {
        for (shape, volume) in [(&[][..], 1), (&[0, 3], 0), (&[3, 0], 0)] {
            let regions = cover([Slice::whole(shape.len())].iter(), shape, volume).unwrap();
            let mut whole = vec![0.; volume];
            regions[0].scatter(&vec![7.; volume], shape, &mut whole);
            assert_eq!(whole, vec![7.; volume]);
        }
    }

    #[test]
    fn boxes_that_do_not_make_up_the_tensor_are_refused() {
        let bad: [&[Slice]; 5] = [
            &[],
            &[part(&[(0, 3)])],
            &[part(&[(0, 3)]), part(&[(2, 2)])],
            &[part(&[(1, 4)])],
            &[part(&[(0, 2), (0, 2)])],
        ];
        for slices in bad {
            assert!(cover(slices.iter(), &[4], 4).is_err(), "{slices:?}");
        }
    }
}
