//! The interface by which this machine reaches the world: that of its default route.

use std::fs;
use std::path::Path;

use nix::net::if_::if_nametoindex;

/// `RTF_UP` and `RTF_REJECT` of linux/route.h.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// `ARPHRD_NONE` and `ARPHRD_PPP` of linux/if_arp.h: interfaces without a link layer, as tunnels have them.
const WITHOUT_LINK: [&str; 2] = ["65534", "512"];

/// That of the default route with the lowest metric, IPv4 before IPv6.
pub(super) fn active() -> Option<String> {
    let routes = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    best(&routes("route"), v4).or_else(|| best(&routes("ipv6_route"), v6))
}

pub(super) fn exists(name: &str) -> bool {
    if_nametoindex(name).is_ok()
}

/// Whether it leads into a tunnel: then others than weir may decide what is asked through a proxy.
pub(super) fn is_vpn(name: &str) -> bool {
    let read = |file: &str| fs::read_to_string(folder(name).join(file)).unwrap_or_default();
    let is_tunnel = read("uevent").contains("DEVTYPE=wireguard") || folder(name).join("tun_flags").exists();
    is_tunnel || name != "lo" && WITHOUT_LINK.contains(&read("type").trim())
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new("/sys/class/net").join(name)
}

fn best(table: &str, route: impl Fn(&[&str]) -> Option<(u32, String)>) -> Option<String> {
    let routes = table.lines().filter_map(|line| route(&line.split_whitespace().collect::<Vec<_>>()));
    routes.min().map(|(_, interface)| interface)
}

/// Interface, destination, gateway, flags, refcount, use, metric, mask: numbers in hexadecimal but for the metric.
fn v4(fields: &[&str]) -> Option<(u32, String)> {
    let [interface, "00000000", _, flags, _, _, metric, "00000000", ..] = fields else { return None };
    usable(flags)?;
    Some((metric.parse().ok()?, (*interface).to_owned()))
}

/// Destination, its prefix length, source, its prefix length, next hop, metric, refcount, use, flags, interface.
fn v6(fields: &[&str]) -> Option<(u32, String)> {
    let [_, "00", _, _, _, metric, _, _, flags, interface] = fields else { return None };
    usable(flags)?;
    Some((u32::from_str_radix(metric, 16).ok()?, (*interface).to_owned()))
}

fn usable(flags: &str) -> Option<()> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    (flags & UP != 0 && flags & REJECT == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_metric_counts() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     wlan0\t00000000\t0102000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     eth1\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(best(table, v4).as_deref(), Some("eth0"));
        assert_eq!(best("", v4), None);
        let zero = "0".repeat(32);
        let table = format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n\
             {zero} 00 {zero} 00 fe800000000000000000000000000001 00000064 00000001 00000000 00000003 eth0\n"
        );
        assert_eq!(best(&table, v6).as_deref(), Some("eth0"));
    }
}
