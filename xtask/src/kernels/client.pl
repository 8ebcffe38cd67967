# One connection or datagram: prints the page's last line, `sent`, or the errno's text.
use strict;
use Socket qw(:DEFAULT inet_pton inet_ntop pack_sockaddr_in6 unpack_sockaddr_in6 AF_INET6 IPPROTO_TCP IPPROTO_UDP);
my ($kind, $host, $port, $uid) = @ARGV;
if ($uid) { $( = $) = $uid; $< = $> = $uid; }
my $v6 = $host =~ /:/;
my $address = inet_pton($v6 ? AF_INET6 : AF_INET, $host);
my $place = $v6 ? pack_sockaddr_in6($port, $address) : pack_sockaddr_in($port, $address);
my $udp = $kind ne 'get';
socket(my $socket, $v6 ? AF_INET6 : AF_INET, $udp ? SOCK_DGRAM : SOCK_STREAM, $udp ? IPPROTO_UDP : IPPROTO_TCP) or die "$!";
sub done { print "$_[0]\n"; exit 0 }
alarm 10;
if ($kind eq 'sendto') { done(defined send($socket, 'x', 0, $place) ? 'sent' : "$!") }
if ($kind eq 'ask') { send($socket, query(), 0, $place) // done("$!"); answered() }
connect($socket, $place) or done("$!");
# `resolve` connected, `ask` unconnected: the address that the name `named` has, and whom the answer is from.
sub query { "\x12\x34" . pack('nnnnn', 0x0100, 1, 0, 0, 0) . "\5named\0" . pack('nn', 1, 1) }
sub answered {
    my $from = recv($socket, my $answer, 512, 0) // done("$!");
    my ($its_port, $its_address) = $v6 ? unpack_sockaddr_in6($from) : unpack_sockaddr_in($from);
    done(join('.', unpack('C4', substr($answer, -4))) . ' from ' . inet_ntop($v6 ? AF_INET6 : AF_INET, $its_address) . " $its_port");
}
if ($kind eq 'resolve') { send($socket, query(), 0) // done("$!"); answered() }
if ($kind eq 'datagram') { done(defined send($socket, 'x', 0) ? 'sent' : "$!") }
my $authority = $v6 ? "[$host]:$port" : "$host:$port";
send($socket, "GET / HTTP/1.0\r\nHost: $authority\r\n\r\n", 0);
my ($answer, $last) = ('', 'nothing');
while (sysread($socket, my $piece, 4096)) { $answer .= $piece }
$last = $_ for grep { length } split /\r?\n/, $answer;
done($last);
