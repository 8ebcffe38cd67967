# `server HOST PORT COUNT`: accepts COUNT connections and answers each with what it sent, then each once more, in their
# order. `client HOST PORT COUNT`: makes them one after the other, says "open", and when a line arrives uses each once
# more. One process each: nothing here waits but for the connection whose turn it is.
use strict;
use Socket;
my ($role, $host, $port, $count) = @ARGV;
my $place = pack_sockaddr_in($port, inet_aton($host));
my @sockets;
$| = 1;
sub receive {
    my ($socket, $data) = ($_[0], '');
    while (length($data) < 8) { sysread($socket, $data, 8 - length $data, length $data) or die "an end: $!" }
    $data;
}
if ($role eq 'server') {
    socket(my $listener, AF_INET, SOCK_STREAM, 0) or die "$!";
    setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
    bind($listener, $place) or die "$!";
    listen($listener, 4096) or die "$!";
    while (@sockets < $count) {
        accept(my $socket, $listener) or die "$!";
        syswrite($socket, receive($socket));
        push @sockets, $socket;
    }
    syswrite($_, receive($_)) for @sockets;
    exit 0;
}
sub exchange {
    my $message = sprintf '%08d', $_[0];
    syswrite($sockets[$_[0]], $message);
    my $answer = receive($sockets[$_[0]]);
    $answer eq $message or die "$answer instead of $message";
}
for my $number (0 .. $count - 1) {
    socket($sockets[$number], AF_INET, SOCK_STREAM, 0) or die "$number: $!";
    connect($sockets[$number], $place) or die "$number: $!";
    exchange($number);
}
print "open\n";
<STDIN>;
exchange($_) for 0 .. $count - 1;
print "done\n";
