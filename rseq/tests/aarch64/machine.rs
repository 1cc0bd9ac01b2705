//! qemu, by its debugger's port.

use super::*;

/// qemu, stopped between two instructions, and the connection to it.
pub struct Machine {
    pub qemu: Child,
    pub port: TcpStream,
    pub symbols: BTreeMap<String, u64>,
}

pub const PC: u64 = 32;

impl Machine {
    pub fn start(program: &Path) -> Option<Machine> {
        let data = std::fs::read(program).expect("reads");
        let file = object::File::parse(&*data).expect("an ELF file");
        let symbols =
            file.symbols().filter_map(|found| Some((found.name().ok()?.to_string(), found.address()))).collect();
        // A number that is free now; qemu takes it a moment later.
        let number = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let qemu =
            Command::new("qemu-aarch64").arg("-g").arg(number.to_string()).arg(program).stdin(Stdio::null()).spawn();
        let qemu = match qemu {
            Ok(qemu) => qemu,
            Err(why) => {
                missing("qemu-aarch64", &why);
                return None;
            }
        };
        let port = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(25));
            TcpStream::connect(("127.0.0.1", number)).ok()
        });
        let port = port.expect("qemu listens");
        port.set_nodelay(true).expect("no delay");
        port.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut machine = Machine { qemu, port, symbols };
        // qemu gives single registers to debuggers that have asked for their description.
        machine.ask("qXfer:features:read:target.xml:0,ff");
        Some(machine)
    }

    pub fn symbol(&self, name: &str) -> u64 {
        *self.symbols.get(name).unwrap_or_else(|| panic!("symbol {name}"))
    }

    /// One packet of the debugger's protocol there and one back.
    pub fn ask(&mut self, question: &str) -> String {
        let sum = question.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.port, "${question}#{sum:02x}").expect("qemu reads");
        let mut byte = [0];
        let mut next = |port: &mut TcpStream| {
            port.read_exact(&mut byte).expect("qemu answers");
            byte[0]
        };
        while next(&mut self.port) != b'$' {}
        let mut answer = Vec::new();
        loop {
            match next(&mut self.port) {
                b'#' => break,
                byte => answer.push(byte),
            }
        }
        let _ = (next(&mut self.port), next(&mut self.port));
        self.port.write_all(b"+").expect("qemu reads");
        String::from_utf8(answer).expect("text")
    }

    pub fn register(&mut self, number: u64) -> u64 {
        let answer = self.ask(&format!("p{number:x}"));
        u64::from_str_radix(&answer, 16).expect("a register").swap_bytes()
    }

    pub fn set_register(&mut self, number: u64, value: u64) {
        let answer = self.ask(&format!("P{number:x}={:016x}", value.swap_bytes()));
        assert_eq!(answer, "OK");
    }

    /// qemu takes packets of up to 4096 characters.
    pub fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        if length > 1024 {
            let mut bytes = self.read(address, 1024);
            bytes.extend(self.read(address + 1024, length - 1024));
            return bytes;
        }
        let answer = self.ask(&format!("m{address:x},{length:x}"));
        assert_eq!(answer.len(), 2 * length, "memory at {address:#x}: {answer}");
        (0..length).map(|at| u8::from_str_radix(&answer[2 * at..2 * at + 2], 16).expect("a byte")).collect()
    }

    pub fn word(&mut self, address: u64) -> u64 {
        u64::from_le_bytes(self.read(address, 8).try_into().expect("eight bytes"))
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        if bytes.len() > 1024 {
            self.write(address, &bytes[..1024]);
            return self.write(address + 1024, &bytes[1024..]);
        }
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        assert_eq!(self.ask(&format!("M{address:x},{:x}:{hex}", bytes.len())), "OK");
    }

    /// Runs up to the instruction at `address`.
    pub fn run_to(&mut self, address: u64) {
        assert_eq!(self.ask(&format!("Z0,{address:x},4")), "OK");
        let answer = self.ask("c");
        assert!(answer.starts_with("T05"), "{answer}");
        assert_eq!(self.ask(&format!("z0,{address:x},4")), "OK");
        assert_eq!(self.register(PC), address);
    }

    pub fn step(&mut self) {
        let answer = self.ask("s");
        assert!(answer.starts_with("T05") || answer.starts_with("S05"), "{answer}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
