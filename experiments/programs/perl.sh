# A hash of 200 000 keys, then sorting, string building and a fork that changes its copy.
perl -e '
    my %h; $h{$_} = "value $_" for 1 .. 200_000;
    my $n = 0; $n += length $h{$_} for keys %h; print "$n bytes of values\n";
    my @s = sort { $h{$a} cmp $h{$b} } keys %h; print "$s[0] $s[99_999] $s[-1]\n";
    my $pid = fork // die "fork: $!";
    if (!$pid) { delete $h{$_} for 1 .. 100_000; print scalar(keys %h), " keys in the child\n"; exit }
    waitpid $pid, 0; print scalar(keys %h), " keys in the parent, child $?\n"'
