//! The one place where a shader is compiled without runtime checks.
#![allow(unsafe_code)]

/// Compiles one of the crate's own shaders as it stands: loop bounding alone made one kernel a
/// hundred times slower.
pub(super) fn compile(device: &wgpu::Device, label: &str, source: &str) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(source.into()) };
    // SAFETY: the only callers pass the files of `shaders/` behind a generated prelude; nothing a
    // user supplies is ever compiled. Every index there is below a length that the same module's
    // `gpu.rs` uploads with the buffers, every loop counts to such a length, and no divisor is zero.
    // The tests compare the results with the CPU at all sizes around the borders.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
