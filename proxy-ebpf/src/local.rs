//! Destinations that never leave for the proxy, and what rules have to say of them all the same: of the proxy's own
//! explicit listener, which would be a way around every rule, and of loopback where a rule names it.

use aya_ebpf::Global;

use crate::attempt::{Attempt, LOCALHOST_V4, MAPPED, ONE, Transport, is_mapped};
use crate::dns;
use crate::listeners::is_home;
use crate::rules::Rules;

/// 169.254.169.254 is link-local, but cloud metadata is for policy to give or refuse.
const METADATA: u32 = u32::from_ne_bytes([169, 254, 169, 254]);

/// Where the explicit proxy listens: the port in network byte order, 0: not known; the address, and 1 if it is any.
#[unsafe(no_mangle)]
pub static EXPLICIT_PORT: Global<u16> = Global::new(0);
#[unsafe(no_mangle)]
pub static EXPLICIT_ADDRESS: Global<[u32; 4]> = Global::new([0; 4]);
#[unsafe(no_mangle)]
pub static EXPLICIT_IS_ANY: Global<u8> = Global::new(0);

/// Whose say it is what becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// That of all rules and of what is selected.
    All,
    /// All rules may refuse it. Otherwise it goes where it wants to.
    Explicit,
    /// The same for rules that name loopback.
    Loopback,
    Nobody,
}

#[inline(always)]
pub fn scope(attempt: &Attempt<'_>) -> Scope {
    let destination = &attempt.destination;
    if !is_exempt(&destination.address) || dns::is_local_server(destination) {
        return Scope::All;
    }
    if is_explicit_listener(attempt) {
        return Scope::Explicit;
    }
    let named = is_loopback(&destination.address) && Rules::in_force().is_some_and(Rules::name_loopback);
    if named { Scope::Loopback } else { Scope::Nobody }
}

/// Where a connection to the unspecified address arrives: at loopback (`tcp_v4_connect`, `tcp_v6_connect`).
#[inline(always)]
pub fn arrival(address: [u32; 4]) -> [u32; 4] {
    match address {
        [0, 0, MAPPED, 0] => [0, 0, MAPPED, LOCALHOST_V4],
        [0, 0, 0, 0] => [0, 0, 0, ONE],
        _ => address,
    }
}

/// From an exempt address. A socket that was bound reaches the listener's address by the unspecified one, too,
/// whatever it is, and of either family.
#[inline(always)]
fn is_explicit_listener(attempt: &Attempt<'_>) -> bool {
    let port = EXPLICIT_PORT.load();
    if port == 0 || attempt.destination.port != port || attempt.transport != Transport::Tcp {
        return false;
    }
    let [a, b, c, d] = attempt.destination.address;
    let [own_a, own_b, own_c, own_d] = EXPLICIT_ADDRESS.load();
    let is_its = a == own_a && b == own_b && c == own_c && d == own_d;
    let is_unspecified = d == 0 && a == 0 && b == 0 && (c == 0 || c == MAPPED);
    (EXPLICIT_IS_ANY.load() != 0 || is_its || is_unspecified) && is_home(attempt.ctx)
}

/// Loopback, unspecified, link-local and multicast destinations never leave for the proxy.
#[inline(always)]
fn is_exempt(address: &[u32; 4]) -> bool {
    if is_loopback(address) {
        return true;
    }
    if is_mapped(address) {
        let [first, second, _, _] = address[3].to_ne_bytes();
        let link_local = first == 169 && second == 254 && address[3] != METADATA;
        return link_local || first >= 224;
    }
    let [first, second, _, _] = address[0].to_ne_bytes();
    first == 0xff || (first == 0xfe && second & 0xc0 == 0x80)
}

/// Or the unspecified address, which is the same.
#[inline(always)]
fn is_loopback(address: &[u32; 4]) -> bool {
    let [a, b, c, d] = *address;
    if is_mapped(address) {
        return d == 0 || d.to_ne_bytes()[0] == 127;
    }
    a == 0 && b == 0 && c == 0 && (d == 0 || d == ONE)
}
