//! The program.

fn main() -> std::process::ExitCode {
    dpdk_conntrack::cli::main()
}
