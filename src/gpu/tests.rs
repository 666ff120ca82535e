use super::*;

fn adapter(name: &str, kind: AdapterKind) -> Description {
    Description {
        name: name.into(),
        backend: "vulkan".into(),
        driver: String::new(),
        kind,
        compute: true,
        binding_bytes_max: 1 << 27,
    }
}

fn taken(adapters: &[Description], name: Option<&str>) -> Option<usize> {
    verdicts(adapters, name).iter().position(|verdict| *verdict == Verdict::Taken)
}

#[test]
fn a_software_adapter_is_taken_only_when_named() {
    let software = [adapter("llvmpipe (LLVM 15.0.6, 256 bits)", AdapterKind::Software)];
    assert_eq!(taken(&software, None), None);
    let [Verdict::Refused(reason)] = &verdicts(&software, None)[..] else { panic!("one refusal") };
    assert!(reason.contains("--adapter llvmpipe"), "{reason}");
    assert_eq!(taken(&software, Some("LLVMPipe")), Some(0));
    assert_eq!(taken(&software, Some("radeon")), None);
    assert_eq!(taken(&software, Some("")), None);
}

#[test]
fn the_best_kind_is_taken_and_the_first_of_equals() {
    let mut adapters = [
        adapter("llvmpipe", AdapterKind::Software),
        adapter("Small", AdapterKind::Integrated),
        adapter("Large", AdapterKind::Discrete),
        adapter("Large", AdapterKind::Discrete),
    ];
    assert_eq!(taken(&adapters, None), Some(2));
    assert_eq!(taken(&adapters, Some("small")), Some(1));
    adapters[2].compute = false;
    assert_eq!(taken(&adapters, None), Some(3));
    assert_eq!(taken(&[], None), None);
}

#[test]
fn a_prelude_is_constants() {
    assert_eq!(prelude(&[("LANES", 64), ("TEAM", 8)]), "const LANES: u32 = 64u;\nconst TEAM: u32 = 8u;\n");
}
