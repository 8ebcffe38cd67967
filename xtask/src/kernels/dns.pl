# A DNS server on 198.18.0.1 and fd00:18::1: every name has the address 198.18.0.2.
use strict;
use Socket qw(:DEFAULT inet_pton inet_aton pack_sockaddr_in6 AF_INET6 IPPROTO_UDP);
my @sockets = map {
    my $v6 = /:/;
    my $address = inet_pton($v6 ? AF_INET6 : AF_INET, $_);
    socket(my $socket, $v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, IPPROTO_UDP) or die "$!";
    bind($socket, $v6 ? pack_sockaddr_in6(53, $address) : pack_sockaddr_in(53, $address)) or die "$!";
    $socket
} qw(198.18.0.1 fd00:18::1);
while (1) {
    my $wanted = '';
    vec($wanted, fileno($_), 1) = 1 for @sockets;
    select(my $ready = $wanted, undef, undef, undef);
    for my $socket (grep { vec($ready, fileno($_), 1) } @sockets) {
        my $client = recv($socket, my $query, 512, 0) or next;
        my ($question) = substr($query, 12) =~ /^([^\0]*\0....)/s or next;
        my $answer = "\xc0\x0c" . pack('nnNn', 1, 1, 300, 4) . inet_aton('198.18.0.2');
        send($socket, substr($query, 0, 2) . pack('nnnnn', 0x8180, 1, 1, 0, 0) . $question . $answer, 0, $client);
    }
}
