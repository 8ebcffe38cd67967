//! What the kernel half counts, per CPU. Neither half keeps a list of its own.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// An index into the map `COUNTERS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $variant,)+ }

        impl Counter {
            /// Every counter, in the order of the map.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// Number of counters: the map's size.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The counter's name in metrics and status.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    /// Connections sent to the proxy.
    Redirected = "redirected",
    /// Sockets and datagrams for DNS servers sent to the proxy.
    RedirectedDns = "redirected_dns",
    /// Connections refused by an action.
    Denied = "denied",
    /// QUIC refused where TCP would be redirected.
    DeniedQuic = "denied_quic",
    /// Neither TCP nor a datagram that is of concern.
    BypassProtocol = "bypass_protocol",
    /// weir's own connections.
    BypassOwn = "bypass_own",
    /// To loopback, link-local, multicast or unspecified addresses.
    BypassDestination = "bypass_destination",
    /// Socket bound to a device.
    BypassDevice = "bypass_device",
    /// Refused already by somebody else's program, which ran before.
    BypassRefused = "bypass_refused",
    /// No selected cgroup.
    BypassCgroup = "bypass_cgroup",
    /// The selected cgroup's action is bypass.
    BypassAction = "bypass_action",
    /// The proxy doesn't listen for this address family.
    BypassFamily = "bypass_family",
    /// Gate: from a network namespace in which the proxy doesn't listen.
    GateNetns = "gate_netns",
    /// Gate: nobody listened on the proxy's port.
    GateListener = "gate_listener",
    /// Gate: the proxy's heartbeat was too old.
    GateHeartbeat = "gate_heartbeat",
    /// The map of captured connections was full.
    GateFull = "gate_full",
    /// Connections let through because of a gate (fail: open).
    FailedOpen = "failed_open",
    /// Connections refused because of a gate (fail: closed).
    FailedClosed = "failed_closed",
    /// A redirected connection the proxy won't be able to name: it will be reset.
    ClaimLost = "claim_lost",
    /// Decisions that were not told to who follows: the ring buffer was full.
    EventsLost = "events_lost",
    /// Connections that ended before the proxy asked for their original destination.
    ClosedUnclaimed = "closed_unclaimed",
}
