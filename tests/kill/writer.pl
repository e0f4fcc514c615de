# In the guest of killtest: numbered records, each synced, then acknowledged on the serial line.
#
#     perl writer.pl FOLDER FIRST STOP TTY      write from record FIRST until the file STOP is there
#     perl writer.pl FOLDER FIRST               check: the records up to FIRST are there, and right
#
# A record goes to the end of FOLDER/records, and eight times into its slot of FOLDER/slots, over
# the record that was there before. Its text is a function of its number alone (see records.py).
use strict;
use warnings;
use Fcntl;
use IO::Handle;

my $SLOTS = 61;
my @crc = map {
    my $c = $_;
    $c = $c & 1 ? 0xEDB88320 ^ ($c >> 1) : $c >> 1 for 1 .. 8;
    $c
} 0 .. 255;

sub record {
    my ($n) = @_;
    my $body = sprintf("%014d", $n) . sprintf("%08x", ($n * 2654435761) & 0xFFFFFFFF) x 61;
    my $c = 0xFFFFFFFF;
    $c = $crc[($c ^ $_) & 255] ^ ($c >> 8) for unpack("C*", $body);
    return sprintf("%s %08x\n", $body, $c ^ 0xFFFFFFFF);
}

sub put {
    my ($file, $offset, $data) = @_;
    sysseek($file, $offset, 0) or return 0;
    (syswrite($file, $data) || 0) == length($data) or return 0;
    return $file->sync;
}

sub get {
    my ($file, $offset, $length) = @_;
    my $data = "";
    sysseek($file, $offset, 0);
    sysread($file, $data, $length);
    return $data // "";
}

my ($folder, $first, $stop, $tty) = @ARGV;
my $mode = defined $tty ? O_WRONLY | O_CREAT : O_RDONLY;
sysopen(my $records, "$folder/records", $mode) or die "records: $!\n";
sysopen(my $slots, "$folder/slots", $mode) or die "slots: $!\n";

if (defined $tty) {
    open(my $line, ">", $tty) or die "$tty: $!\n";
    my $n = $first;
    for (; !-e $stop; $n++) {
        my $text = record($n);
        syswrite($line, "rec-sync $n\n");
        my $well = put($records, ($n - 1) * 512, $text)
            && put($slots, $n % $SLOTS * 4096, $text x 8);
        syswrite($line, $well ? "rec-done $n\n" : "rec-fail $n $!\n");
    }
    print $n - 1, "\n";
    exit 0;
}

my $wrong = 0;
for my $n (1 .. $first) {
    my $text = record($n);
    get($records, ($n - 1) * 512, 512) eq $text or $wrong++, print "record $n is wrong\n";
    next if $n <= $first - $SLOTS;
    # The next records of this slot may have been written, and not been acknowledged.
    my $held = get($slots, $n % $SLOTS * 4096, 4096);
    my $number = $held =~ /^(\d{14})/ ? 0 + $1 : 0;
    my $newer = $number > $first && $number % $SLOTS == $n % $SLOTS;
    ($number == $n || $newer) && $held eq record($number) x 8
        or $wrong++, print "the slot of record $n is wrong\n";
}
print "$first records, $wrong wrong\n";
exit($wrong ? 1 : 0);
