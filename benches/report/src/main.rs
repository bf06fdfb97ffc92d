//! Writes `docs/benchmarks.md` and its plots from what `make bench` has measured and kept as JSON.
//!
//! `report machine` prints what is measured on, `report write DIRECTORY` writes the report of what is in there.

#![forbid(unsafe_code)]

mod data;
mod machine;
mod markdown;
mod plots;
mod table;
mod targets;

use std::path::Path;
use std::process::ExitCode;

use data::Data;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["machine"] => print_machine(),
        ["write", directory] => write(Path::new(directory)),
        _ => Err("usage: report machine | report write DIRECTORY".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_machine() -> Result<(), Error> {
    println!("{}", serde_json::to_string_pretty(&machine::this())?);
    Ok(())
}

/// Writes the plots beside the data and the report beside their directory, and prints how the targets were met.
fn write(directory: &Path) -> Result<(), Error> {
    let data = Data::read(directory)?;
    let plots = plots::draw(&data, directory)?;
    let report = markdown::report(&data, &plots);
    let path = directory.with_extension("md");
    std::fs::write(&path, report).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}", table::text(&targets::HEADER, &targets::rows(&data)));
    eprintln!("written: {}", path.display());
    Ok(())
}
