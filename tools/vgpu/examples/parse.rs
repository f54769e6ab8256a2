//! Loads modules.
use vgpu::{memory::Memory, program::Module};
fn main() {
    for f in std::env::args().skip(1) {
        let t = std::fs::read_to_string(&f).unwrap();
        let mut m = Memory::new(1 << 30);
        match Module::load(&t, &mut m) {
            Ok(m) => {
                println!("{f}: {:?} {}", m.version, m.target);
                for k in &m.kernels {
                    println!("  {} params {} shared {} local {} regs {}", k.name, k.param_bytes(), k.static_shared, k.local, k.registers);
                }
            }
            Err(e) => println!("{f}: {e}"),
        }
    }
}
