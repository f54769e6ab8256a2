fn main() {
    for f in std::env::args().skip(1) {
        let t = std::fs::read_to_string(&f).unwrap();
        match vgpu::ptx::parse(&t) {
            Ok(m) => println!("{f}: {} functions {:?} {}", m.functions.len(), m.version, m.target),
            Err(e) => println!("{f}: {e}"),
        }
    }
}
