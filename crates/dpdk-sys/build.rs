//! Binds the system's libdpdk: finds it by pkg-config, writes the allow-listed declarations, compiles the shim,
//! and says what to link. A missing tool or a DPDK too old ends the build with the package to install.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, exit};
use std::{env, fs};

/// The oldest release whose headers these declarations were tried with.
const OLDEST: (u32, u32) = (22, 11);

/// Releases that changed what we call, for `#[cfg(dpdk_ge_23_11)]` and so on.
const RELEASES: &[(u32, u32)] = &[(23, 11), (24, 11), (25, 11)];

/// What Rust may see, as regular expressions over C names.
const FUNCTIONS: &[&str] = &[
    "rte_eal_cleanup",
    "rte_eal_hotplug_(add|remove)",
    "rte_(strerror|version|get_tsc_hz|dev_name)",
    "rte_thread_(register|unregister)",
    "rte_malloc_get_socket_stats",
    "rte_eth_dev_(configure|start|stop|close|info_get|get_port_by_name|set_mtu|get_mtu|socket_id)",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_promiscuous_(enable|disable)",
    "rte_eth_(stats_get|xstats_get|xstats_get_names|macaddr_get)",
    "rte_pktmbuf_(pool_create|free_bulk)",
    "rte_mempool_(avail_count|in_use_count|free)",
    "rte_ring_(create|free)",
    "rte_telemetry_register_cmd",
    "rte_tel_data_(alloc|free|start_dict|string|add_dict_string|add_dict_container)",
    "dpdk_.*",
];
const TYPES: &[&str] =
    &["rte_eth_(fp_ops|conf|dev_info|stats|xstat|xstat_name)", "rte_malloc_socket_stats", "rte_ether_addr"];
const VARS: &[&str] = &[
    "rte_eth_fp_ops",
    "RTE_MAX_ETHPORTS",
    "RTE_PKTMBUF_HEADROOM",
    "RTE_LOG_.*",
    "RTE_MEMPOOL_CACHE_MAX_SIZE",
    "RTE_ETH_(NAME_MAX_LEN|XSTATS_NAME_SIZE)",
    "RING_F_.*",
    "RTE_TEL_MAX_(STRING_LEN|DICT_ENTRIES|ARRAY_ENTRIES)",
    "DPDK_.*",
];
/// Size and alignment only: fields by offset, see wrapper.h.
const OPAQUE: &[&str] = &["rte_mbuf", "rte_mempool", "rte_ring", "rte_device"];

/// What a shared build links. EAL loads the drivers itself, from the folder built into libdpdk.
const SHARED: &[&str] = &["ethdev", "mbuf", "mempool", "ring", "telemetry", "eal"];

/// Drivers that a static build carries, where the release has them.
const STATIC_DRIVERS: &[&str] = &[
    "bus_auxiliary",
    "bus_pci",
    "bus_vdev",
    "mempool_ring",
    "common_iavf",
    "common_mlx5",
    "net_af_packet",
    "net_af_xdp",
    "net_bond",
    "net_e1000",
    "net_ena",
    "net_i40e",
    "net_iavf",
    "net_ice",
    "net_igc",
    "net_ixgbe",
    "net_memif",
    "net_mlx5",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_tap",
    "net_vhost",
    "net_virtio",
    "net_vmxnet3",
];
/// Libraries that those drivers and we use, where the release has them (`log` and `argparse` came later).
const STATIC_LIBRARIES: &[&str] = &[
    "argparse",
    "bpf",
    "cryptodev",
    "dmadev",
    "eal",
    "ethdev",
    "gso",
    "hash",
    "ip_frag",
    "kvargs",
    "log",
    "mbuf",
    "mempool",
    "meter",
    "net",
    "pci",
    "rcu",
    "ring",
    "sched",
    "security",
    "stack",
    "telemetry",
    "timer",
    "vhost",
];
/// System libraries that the archives above refer to; the linker leaves out what nothing uses.
const STATIC_SYSTEM: &[&str] = &[
    "atomic", "bpf", "bsd", "dl", "elf", "ibverbs", "jansson", "m", "md", "mlx5", "numa", "pcap", "pthread",
    "rt", "xdp", "z",
];

fn main() {
    for file in ["build.rs", "wrapper.h", "shim.c"] {
        println!("cargo:rerun-if-changed={file}");
    }
    for var in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "LIBCLANG_PATH"] {
        println!("cargo:rerun-if-env-changed={var}");
    }

    let version = pkg_config(&["--modversion"]).concat();
    check_version(&version);
    // All of them: the `pkg-config` crate drops `-include rte_config.h` and `-march`, without which struct
    // layouts come out wrong.
    let cflags = pkg_config(&["--cflags"]);
    write_bindings(&cflags);

    let mut shim = cc::Build::new();
    // DPDK's headers warn; a function that none of them declares would be taken to return an int, and crash.
    let implicit = "-Werror=implicit-function-declaration";
    shim.file("shim.c").include(".").opt_level(3).warnings(false).flag(implicit);
    for flag in &cflags {
        shim.flag(flag);
    }
    if let Err(why) = shim.try_compile("dpdk_shim") {
        stop(&format!(
            "shim.c does not compile ({why}); on Debian or Ubuntu: apt-get install gcc libc6-dev libdpdk-dev"
        ));
    }
    link();
}

/// Ends the build with one sentence that cargo prints as an error.
fn stop(sentence: &str) -> ! {
    println!("cargo::error={}", sentence.replace('\n', " "));
    exit(1)
}

fn pkg_config(args: &[&str]) -> Vec<String> {
    let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let out = match Command::new(&tool).args(args).arg("libdpdk").output() {
        Ok(out) => out,
        Err(why) => stop(&format!(
            "cannot run {tool} ({why}); on Debian or Ubuntu: apt-get install pkg-config libdpdk-dev libclang-dev"
        )),
    };
    if !out.status.success() {
        stop(&format!(
            "{tool} does not know libdpdk; on Debian or Ubuntu: apt-get install libdpdk-dev; for a DPDK of your own, \
             set PKG_CONFIG_PATH to the folder of its libdpdk.pc ({})",
            String::from_utf8_lossy(&out.stderr).trim()
        ));
    }
    String::from_utf8_lossy(&out.stdout).split_whitespace().map(str::to_owned).collect()
}

fn check_version(version: &str) {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < OLDEST {
        let (year, month) = OLDEST;
        stop(&format!(
            "DPDK {year}.{month} or newer is needed, pkg-config finds {version}; Debian 12 and Ubuntu 24.04 have it: \
             apt-get install libdpdk-dev"
        ));
    }
    for &(year, month) in RELEASES {
        println!("cargo:rustc-check-cfg=cfg(dpdk_ge_{year}_{month})");
        if found >= (year, month) {
            println!("cargo:rustc-cfg=dpdk_ge_{year}_{month}");
        }
    }
    println!("cargo:version={version}");
}

fn write_bindings(cflags: &[String]) {
    if let Err(why) = clang_sys::load() {
        stop(&format!("libclang was not found ({why}); on Debian or Ubuntu: apt-get install libclang-dev"));
    }
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(cflags)
        .use_core()
        .generate_comments(false)
        .layout_tests(true)
        .derive_default(false)
        .prepend_enum_name(false)
        .default_enum_style(bindgen::EnumVariation::Consts);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in VARS {
        builder = builder.allowlist_var(name);
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    let text = match builder.generate() {
        Ok(bindings) => bindings.to_string(),
        Err(why) => stop(&format!(
            "libdpdk's headers cannot be read ({why}); on Debian or Ubuntu: apt-get install libclang-dev libdpdk-dev"
        )),
    };
    let path = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    if let Err(why) = fs::write(&path, text) {
        stop(&format!("cannot write {}: {why}", path.display()));
    }
}

fn link() {
    for dir in pkg_config(&["--libs-only-L"]) {
        println!("cargo:rustc-link-search=native={}", dir.trim_start_matches("-L"));
    }
    if env::var_os("CARGO_FEATURE_STATIC").is_none() {
        for lib in SHARED {
            println!("cargo:rustc-link-lib=dylib=rte_{lib}");
        }
        return;
    }
    for dir in pkg_config(&["--variable=libdir"]) {
        println!("cargo:rustc-link-search=native={dir}");
    }
    // Whole archives: drivers and mempool operations are reachable only through their constructors, which a
    // linker drops. pkg-config's order, each once.
    let mut seen = BTreeSet::new();
    for word in pkg_config(&["--static", "--libs"]) {
        let archive = word.strip_prefix("-l:librte_").and_then(|rest| rest.strip_suffix(".a"));
        if let Some(lib) = archive {
            let wanted = STATIC_DRIVERS.contains(&lib) || STATIC_LIBRARIES.contains(&lib);
            if wanted && seen.insert(format!("rte_{lib}")) {
                println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=rte_{lib}");
            }
        } else if let Some(lib) = word.strip_prefix("-l")
            && STATIC_SYSTEM.contains(&lib)
            && seen.insert(lib.to_owned())
        {
            println!("cargo:rustc-link-lib=dylib={lib}");
        }
    }
}
