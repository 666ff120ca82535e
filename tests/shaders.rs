//! Parses, validates and reflects every shader, without a GPU.

use naga::proc::Layouter;
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage, TypeInner};
use qis::merge::Tuning;
use std::collections::BTreeMap;

/// Every shader with its whole text and the file of its twin.
fn shaders() -> [(&'static str, String, &'static str); 3] {
    [
        ("embed", qis::embed::gpu::source(), include_str!("../src/embed/cpu.rs")),
        ("fingerprint", qis::fingerprint::gpu::source(), include_str!("../src/fingerprint/cpu.rs")),
        ("merge", qis::merge::gpu::source(), include_str!("../src/merge/cpu.rs")),
    ]
}

fn module(source: &str) -> Module {
    naga::front::wgsl::parse_str(source).unwrap_or_else(|error| panic!("{}", error.emit_to_string(source)))
}

fn valid(module: &Module, name: &str, source: &str) -> ModuleInfo {
    let flags = naga::valid::ValidationFlags::all();
    let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::empty());
    validator.validate(module).unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)))
}

/// Every set of values that a shader's overrides can take; none for a shader without them.
fn overrides(name: &str) -> Vec<Vec<(&'static str, u32)>> {
    if name != "merge" {
        return vec![vec![]];
    }
    let mut all = vec![];
    for lanes in [64, 128, 256] {
        for rows in [32, 64] {
            for queries_per_lane in [1, 2] {
                let tuning = Tuning { lanes, rows, queries_per_lane, ..Tuning::default() };
                if tuning.is_sound() {
                    let groups = 1..=qis::merge::gpu::DISPATCH_GROUPS_MAX;
                    all.extend(groups.map(|groups| qis::merge::gpu::overrides(&tuning, groups).to_vec()));
                }
            }
        }
    }
    all
}

/// A shader as the driver gets it.
fn specialised(name: &str, source: &str, overrides: &[(&str, u32)]) -> Module {
    let module = module(source);
    let info = valid(&module, name, source);
    let constants = overrides.iter().map(|&(name, value)| (name.to_string(), f64::from(value))).collect();
    let (module, _) = naga::back::pipeline_constants::process_overrides(&module, &info, None, &constants)
        .unwrap_or_else(|error| panic!("{name} with {overrides:?}: {error}"));
    module.into_owned()
}

#[test]
fn every_file_is_a_known_shader() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut known = shaders().map(|(name, ..)| format!("{name}.wgsl"));
    known.sort();
    assert_eq!(files, known, "an orphan in shaders/, or a shader that this test does not know");
}

#[test]
fn shaders_are_valid_and_have_a_twin_of_the_same_name() {
    for (name, source, twin) in shaders() {
        let module = module(&source);
        valid(&module, name, &source);
        let named = module.entry_points.iter().filter(|entry| entry.name == name);
        assert_eq!(named.count(), 1, "one entry point is named like the file");
        for entry in &module.entry_points {
            let variant = entry.name == name || entry.name.starts_with(&format!("{name}_"));
            assert!(variant, "{name}: {} is no way to compute the same", entry.name);
            assert_eq!(entry.stage, ShaderStage::Compute);
        }
        assert!(twin.contains(&format!("pub fn {name}(")), "{name} has no twin in cpu.rs");
    }
}

/// What runs everywhere: eight storage buffers, 16 KiB of workgroup memory, 256 lanes.
#[test]
fn shaders_stay_within_the_limits_of_any_adapter() {
    for (name, source, _) in shaders() {
        for overrides in overrides(name) {
            within_limits(name, &specialised(name, &source, &overrides));
        }
    }
}

fn within_limits(name: &str, module: &Module) {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let mut storage = 0;
    let mut workgroup_bytes = 0;
    let mut bindings = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        match variable.space {
            naga::AddressSpace::Storage { .. } => storage += 1,
            naga::AddressSpace::WorkGroup => workgroup_bytes += layouter[variable.ty].size,
            naga::AddressSpace::Uniform => {
                assert!(layouter[variable.ty].size <= 16 << 10, "{name}: uniform too large");
            }
            _ => {}
        }
        if let Some(binding) = &variable.binding {
            assert_eq!(binding.group, 0);
            bindings.push(binding.binding);
        }
    }
    bindings.sort_unstable();
    assert!(bindings.iter().copied().eq(0..bindings.len() as u32), "{name}: bindings count from 0");
    assert!(storage <= 8, "{name}: {storage} storage buffers");
    assert!(workgroup_bytes <= 16 << 10, "{name}: {workgroup_bytes} bytes of workgroup memory");
    for entry in &module.entry_points {
        let lanes = entry.workgroup_size.iter().product::<u32>();
        assert!((1..=256).contains(&lanes), "{}: {lanes} lanes", entry.name);
    }
}

/// Members of a struct with their offsets, and its size.
fn layout(module: &Module, name: &str) -> (BTreeMap<String, u32>, u32) {
    let (_, kind) = module
        .types
        .iter()
        .find(|(_, kind)| kind.name.as_deref() == Some(name))
        .unwrap_or_else(|| panic!("no struct {name}"));
    let TypeInner::Struct { members, span } = &kind.inner else { panic!("{name} is no struct") };
    let members = members.iter().map(|member| (member.name.clone().unwrap_or_default(), member.offset));
    (members.collect(), *span)
}

/// Compares size and the named members of a Rust struct with the shader's.
macro_rules! assert_layout {
    ($module:expr, $name:literal, $rust:ty, [$($member:ident),*]) => {{
        let (members, bytes) = layout(&$module, $name);
        assert_eq!(bytes as usize, size_of::<$rust>(), "size of {}", $name);
        $(assert_eq!(
            members.get(stringify!($member)).copied(),
            Some(std::mem::offset_of!($rust, $member) as u32),
            "{}.{}", $name, stringify!($member)
        );)*
        let named = [$(stringify!($member)),*];
        for member in members.keys().filter(|member| !member.starts_with("padding")) {
            assert!(named.contains(&member.as_str()), "{}.{member} is not compared", $name);
        }
    }};
}

#[test]
fn layouts_equal_the_rust_ones() {
    let [embed, fingerprint, merge] = shaders().map(|(_, source, _)| module(&source));
    assert_layout!(embed, "Parameters", qis::embed::gpu::Parameters, [signals, diagonal, shift, rounding]);
    assert_layout!(
        fingerprint,
        "Parameters",
        qis::fingerprint::gpu::Parameters,
        [packets, first, signs, ties, stream]
    );
    assert_layout!(
        merge,
        "Parameters",
        qis::merge::gpu::Parameters,
        [columns, groups, first_group, kernel_shift, kernel_table]
    );
    assert_layout!(merge, "Query", qis::merge::gpu::Query, [slots, norm]);
    assert_layout!(merge, "Segment", qis::merge::tile::Segment, [row, query, rows, packet, packets, values]);
    assert_layout!(merge, "Tile", qis::merge::tile::Tile, [segment, segments, shape, packets]);
}
