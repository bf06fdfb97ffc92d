//! The machine, as far as it tells.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// What is measured on, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub date: String,
    pub cores: usize,
    pub cpu: String,
    pub memory_gib: Option<f64>,
    pub kernel: String,
    pub rust: String,
    /// How many processes wanted to run over the last minute before anything was measured.
    pub load_before: Option<f64>,
}

impl Machine {
    /// Whether it is the same one on the same day.
    pub fn is(&self, other: &Machine) -> bool {
        // Memory as it is shown: what the kernel keeps for itself is not always the same.
        let memory = |machine: &Machine| machine.memory_gib.map(|gib| (gib * 10.0).round());
        self.date == other.date
            && self.cores == other.cores
            && self.cpu == other.cpu
            && self.kernel == other.kernel
            && self.rust == other.rust
            && memory(self) == memory(other)
    }
}

/// The machine this runs on.
pub fn this() -> Machine {
    Machine {
        date: output("date", &["-u", "+%Y-%m-%d"]),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        cpu: cpu(),
        memory_gib: memory_gib(),
        kernel: output("uname", &["-srm"]),
        rust: output("rustc", &["--version"]),
        load_before: load(),
    }
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = field(&info, "model name").map(str::to_owned);
    name.unwrap_or_else(|| output("sysctl", &["-n", "machdep.cpu.brand_string"]))
}

fn memory_gib() -> Option<f64> {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match field(&info, "MemTotal") {
        Some(kib) => Some(kib.strip_suffix("kB")?.trim().parse::<f64>().ok()? / (1 << 20) as f64),
        None => {
            let bytes: f64 = output("sysctl", &["-n", "hw.memsize"]).parse().ok()?;
            Some(bytes / (1 << 30) as f64)
        }
    }
}

fn load() -> Option<f64> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    load.split(' ').next()?.parse().ok()
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_stands_around_their_names() {
        let text = "model\t\t: 1\nmodel name\t: AMD EPYC\nMemTotal:       24 kB\n";
        assert_eq!(field(text, "model name"), Some("AMD EPYC"));
        assert_eq!(field(text, "MemTotal"), Some("24 kB"));
        assert_eq!(field(text, "flags"), None);
    }
}
