#!/bin/sh
# Every test, with the GPU tests required. They run on Mesa's software Vulkan driver, which is
# installed where it is missing and this user may.
set -eu
cd "$(dirname "$0")/.."

has_vulkan() { # a loader and Mesa's software driver
  ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1' &&
    ls /usr/share/vulkan/icd.d/lvp_icd*.json /etc/vulkan/icd.d/lvp_icd*.json 2>/dev/null | grep -q .
}

if ! has_vulkan; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing mesa-vulkan-drivers and libvulkan1"
    apt-get update -qq </dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq mesa-vulkan-drivers libvulkan1 </dev/null >/dev/null
  else
    echo "no software Vulkan driver; as root: apt-get install mesa-vulkan-drivers libvulkan1" >&2
    exit 1
  fi
fi

export QIS_TEST_ADAPTER="${QIS_TEST_ADAPTER:-llvmpipe}" QIS_REQUIRE_GPU=1
exec cargo test --release --all-targets "$@"
