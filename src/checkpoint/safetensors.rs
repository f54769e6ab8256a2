//! safetensors files: a JSON header of bounded length, then the values.
//!
//! The idea: the format's own crate checks the header (places in order, without gaps, of the size that shape and
//! type ask for), so that what is left to check is that header and values make up the file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::fault::{Fault, quote};
use super::{DType, METADATA_LIMIT, VARIABLES, Variable, find_float, volume, zeros};
use crate::error::{Error, Result, printable};

/// An open safetensors file.
#[derive(Debug)]
pub(super) struct Reader {
    file: PathBuf,
    source: File,
    length: u64,
    variables: Vec<Variable>,
    /// Of each variable, in the same order, the offset of its values in the file.
    offsets: Vec<u64>,
}

impl Reader {
    /// Takes in the header. `length` is the file's.
    pub(super) fn open(file: &Path, mut source: File, length: u64) -> Result<Reader> {
        let at = |fault: Fault| fault.at(file, "the header");
        let mut size = [0; 8];
        source
            .seek(SeekFrom::Start(0))
            .and_then(|_| source.read_exact(&mut size))
            .map_err(Error::io(file, "read its header"))?;
        let size = u64::from_le_bytes(size);
        let most = (METADATA_LIMIT as u64).min(length.saturating_sub(8));
        if size > most {
            return Err(at(Fault::new(format!("at most {most} bytes"), size.to_string())));
        }
        let mut header = vec![0; size as usize];
        source.read_exact(&mut header).map_err(Error::io(file, "read its header"))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
            at(Fault::new("a description of tensors in JSON", printable(&error.to_string())))
        })?;
        let described = (8 + size).saturating_add(metadata.data_len() as u64);
        if described != length {
            let expected = format!("the {described} bytes that the header describes");
            return Err(Error::malformed(file, "length", expected, format!("{length} bytes")));
        }
        let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
        if tensors.len() > VARIABLES {
            let found = tensors.len().to_string();
            return Err(at(Fault::new(format!("at most {VARIABLES} tensors"), found)));
        }
        tensors.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let (variables, offsets) = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let variable = Variable { name, dtype: dtype(tensor.dtype), shape: tensor.shape.clone() };
                (variable, 8 + size + tensor.data_offsets.0 as u64)
            })
            .unzip();
        Ok(Reader { file: file.into(), source, length, variables, offsets })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn variables(&self) -> &[Variable] {
        &self.variables
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        let (index, size) = find_float(&self.variables, &self.file, name)?;
        let Variable { dtype, shape, .. } = &self.variables[index];
        let at = |fault: Fault| fault.at(&self.file, format!("tensor {}", quote(name.as_bytes())));
        let count = volume(shape, self.length / size as u64).map_err(at)?;
        let mut values = zeros::<f32>(count).map_err(at)?;
        let offset = self.offsets[index];
        (self.source.seek(SeekFrom::Start(offset)))
            .and_then(|_| dtype.read(&mut self.source, &mut values, |_| {}))
            .map_err(Error::io(&self.file, format!("read {} bytes at offset {offset}", count * size)))?;
        Ok(values)
    }
}

fn dtype(of: Dtype) -> DType {
    match of {
        Dtype::F32 => DType::Float32,
        Dtype::F64 => DType::Float64,
        Dtype::F16 => DType::Float16,
        Dtype::BF16 => DType::BFloat16,
        Dtype::I32 => DType::Int32,
        Dtype::I64 => DType::Int64,
        Dtype::BOOL => DType::Named("bool"),
        Dtype::U8 => DType::Named("uint8"),
        Dtype::I8 => DType::Named("int8"),
        Dtype::I16 => DType::Named("int16"),
        Dtype::U16 => DType::Named("uint16"),
        Dtype::U32 => DType::Named("uint32"),
        Dtype::U64 => DType::Named("uint64"),
        Dtype::C64 => DType::Named("complex64"),
        _ => DType::Named("floats of 8 bits or fewer"),
    }
}
