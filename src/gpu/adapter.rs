//! Which adapters there are, and which one is taken.

/// What an adapter is built of; earlier kinds are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    Discrete,
    Integrated,
    Virtual,
    /// The driver does not say.
    Other,
    /// A CPU that plays a GPU: exact, but slower than the CPU code. Taken only when named.
    Software,
}

/// What is known of an adapter before it is opened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    pub name: String,
    /// vulkan, metal or dx12.
    pub backend: String,
    pub driver: String,
    pub kind: AdapterKind,
    /// Whether it runs compute shaders at all.
    pub compute: bool,
    /// Largest storage binding in bytes, before our own bound.
    pub binding_bytes_max: u64,
}

/// An adapter that can be opened.
pub struct Adapter {
    pub(super) inner: wgpu::Adapter,
    pub(super) description: Description,
}

impl Adapter {
    pub fn description(&self) -> &Description {
        &self.description
    }
}

/// Whether an adapter is taken, and why not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Taken,
    /// The reason, with what to do about it.
    Refused(String),
}

/// Every adapter of this machine, in the drivers' order.
pub fn list() -> Vec<Adapter> {
    // Labels and validation layers cost time on every call and print on their own.
    let descriptor = wgpu::InstanceDescriptor {
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.into_iter().map(|inner| Adapter { description: describe(&inner), inner }).collect()
}

fn describe(adapter: &wgpu::Adapter) -> Description {
    let info = adapter.get_info();
    let compute = wgpu::DownlevelFlags::COMPUTE_SHADERS;
    Description {
        kind: kind(&info.name, info.device_type),
        backend: info.backend.to_str().into(),
        driver: [info.driver, info.driver_info].join(" ").trim().into(),
        name: info.name,
        compute: adapter.get_downlevel_capabilities().flags.contains(compute),
        binding_bytes_max: adapter.limits().max_storage_buffer_binding_size,
    }
}

/// Drivers do not always say that they are software, their names do.
fn kind(name: &str, device_type: wgpu::DeviceType) -> AdapterKind {
    let name = name.to_lowercase();
    let software = ["llvmpipe", "lavapipe", "swiftshader", "basic render driver"];
    if software.iter().any(|part| name.contains(part)) {
        return AdapterKind::Software;
    }
    match device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    }
}

/// One verdict per adapter; at most one is taken: among those that may be, the best kind, the first
/// of equals. `name` is a part of the adapter's name, in any case.
pub fn verdicts(adapters: &[Description], name: Option<&str>) -> Vec<Verdict> {
    // An empty name names nothing.
    let wanted = name.map(str::to_lowercase).filter(|part| !part.trim().is_empty());
    let reason = |adapter: &Description| -> Option<String> {
        if !adapter.compute {
            return Some("it runs no compute shaders: a newer driver may".into());
        }
        match &wanted {
            Some(part) if !adapter.name.to_lowercase().contains(part) => {
                Some(format!("its name does not contain \"{part}\""))
            }
            None if adapter.kind == AdapterKind::Software => {
                let first = adapter.name.split_whitespace().next().unwrap_or_default();
                Some(format!("a software adapter is taken only when named: --adapter {first}"))
            }
            _ => None,
        }
    };
    let reasons: Vec<Option<String>> = adapters.iter().map(reason).collect();
    let allowed = |&i: &usize| reasons[i].is_none();
    let taken = (0..adapters.len()).filter(allowed).min_by_key(|&i| adapters[i].kind);
    let verdict = |(i, reason): (usize, Option<String>)| match reason {
        Some(reason) => Verdict::Refused(reason),
        None if taken == Some(i) => Verdict::Taken,
        None => Verdict::Refused("another adapter is preferred: name this one with --adapter".into()),
    };
    reasons.iter().cloned().enumerate().map(verdict).collect()
}
