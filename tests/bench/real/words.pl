# Words, hashes, arrays of arrays, substitution and sorting. words.pl ROUNDS
use strict;
use warnings;

my ($seed, $total) = (12345, 0);
sub next_number { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed >> 8; }

for my $round (1 .. $ARGV[0]) {
    my (%count, %by_length, @lines);
    for my $line (1 .. 4000) {
        my @words = map { join '', map { chr(97 + next_number() % 26) } 1 .. 1 + next_number() % 7 } 1 .. 8;
        push @lines, join ' ', @words;
        $count{$_}++ for @words;
    }
    push @{ $by_length{ length $_ } }, $_ for sort keys %count;
    my $text = join "\n", @lines;
    $text =~ s/([aeiou])(\w)/$2$1/g;
    my @fields = map { [ split / / ] } split /\n/, $text;
    $total += length(join ',', map { scalar @$_ } @fields) + keys %count;
    $total += scalar @{ $by_length{$_} } for keys %by_length;
    my %nested;
    $nested{ substr $_, 0, 1 }{ substr $_, -1 }{$_} = 1 for keys %count;
    $total += keys %{ $nested{$_} } for keys %nested;
}
print "$total\n";
