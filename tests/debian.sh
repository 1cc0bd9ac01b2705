# What the scripts share that fetch from Debian what they need, and run tests in a folder of their own or on emulated
# machines. To be sourced, with `script`, which messages begin with; `foreign`, an architecture whose packages are wanted
# too; and `target`, for which tests are built where it is not the host.
#
# KEEP=DIR keeps what was fetched and built in DIR. Exits with 77 where the archives have not what is needed.

fail() { printf '%s: %s\n' "$script" "$*" >&2; exit 1; }
lack() { printf '%s: %s\n' "$script" "$*" >&2; exit 77; }
step() { printf '\n== %s\n' "$*"; }

command -v apt-get >/dev/null || lack "this script fetches its tools from Debian, and there is no apt-get here"
apt=(apt-get) cache=(apt-cache) as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

# The archives' lists, once, with those of the foreign architecture.
update() {
    [ -z "${updated:-}" ] || return 0
    if [ -n "${foreign:-}" ] && ! dpkg --print-foreign-architectures | grep -qx "$foreign"; then
        "${as_root[@]}" dpkg --add-architecture "$foreign"
    fi
    "${as_root[@]}" apt-get update -qq || lack "apt-get update failed"
    updated=1
}

# install PACKAGE...: those that are not there yet. Says which cannot be had.
install() {
    local package missing=()
    for package; do
        dpkg-query -W -f='${db:Status-Abbrev}\n' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    update
    for package in "${missing[@]}"; do
        apt-cache show "$package" >/dev/null 2>&1 || lack "no package $package in this Debian's archives"
    done
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
        || lack "apt-get could not install: ${missing[*]}"
}

# `work`: the folder of what is fetched and built.
workshop() {
    work="$(realpath -m "${KEEP:-$(mktemp -d)}")"
    mkdir -p "$work"
    [ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
}

# lists SUITE: another suite's lists, in a folder of their own; `apt` and `cache` are apt-get and apt-cache on them, as if
# nothing were installed on a machine of `architecture` (amd64). The suite noble is Ubuntu's, by the keys that Debian's sid
# has in a package.
lists() {
    local suite="$1" of="${architecture:-amd64}" folder keys=/usr/share/keyrings/debian-archive-keyring.gpg
    local archive=http://deb.debian.org/debian
    folder="$work/apt-$suite-$of"
    if [ "$suite" = noble ]; then
        lists sid
        fetch "$work/keys" ubuntu-keyring
        keys="$work/keys/usr/share/keyrings/ubuntu-archive-keyring.gpg" archive=http://archive.ubuntu.com/ubuntu
    fi
    local signed="signed-by=$keys"
    apt=(apt-get -c "$folder/configuration") cache=(apt-cache -c "$folder/configuration")
    [ ! -e "$folder/done" ] || return 0
    mkdir -p "$folder"/{lists/partial,cache/archives/partial}
    touch "$folder/status"
    echo "deb [$signed] $archive $suite main" >"$folder/sources"
    [ "$suite" != bookworm ] ||
        echo "deb [$signed] http://deb.debian.org/debian-security bookworm-security main" >>"$folder/sources"
    cat >"$folder/configuration" <<APT
Dir::Etc::SourceList "$folder/sources";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$folder/lists";
Dir::State::status "$folder/status";
Dir::Cache "$folder/cache";
APT::Architecture "$of";
APT::Architectures {"$of";};
APT::Sandbox::User "root";
APT
    "${apt[@]}" update -qq || lack "the lists of the suite $suite cannot be had"
    touch "$folder/done"
}

# fetch FOLDER PACKAGE...: unpacks packages there, by `apt`.
fetch() {
    local folder="$1" package
    shift
    [ ! -e "$folder/done" ] || return 0
    mkdir -p "$folder/archives"
    (cd "$folder/archives" && "${apt[@]}" download -qq "$@") || lack "could not be downloaded: $*"
    for package in "$folder"/archives/*.deb; do dpkg -x "$package" "$folder"; done
    rm -rf "$folder/archives"
    touch "$folder/done"
}

# linux META: `image`, the kernel that this package of the suite of `lists` leads to, and `package`, its name. Names change
# with every update; newer images are in a package of their own.
linux() {
    package="$("${cache[@]}" depends "$1" 2>/dev/null | sed -n 's/.*Depends: \(linux-\(image\|binary\)-[^ ]*\).*/\1/p' | head -1)"
    [ -n "$package" ] || lack "no package $1 in these archives of Debian's"
    fetch "$work/$package" "$package"
    if ! compgen -G "$work/$package/boot/vmlinuz-*" >/dev/null; then
        package="$("${cache[@]}" depends "$package" | sed -n 's/.*Depends: \(linux-binary-[^ ]*\).*/\1/p' | head -1)"
        [ -n "$package" ] || fail "$1 leads to no kernel"
        fetch "$work/$package" "$package"
    fi
    image="$(compgen -G "$work/$package/boot/vmlinuz-*" || compgen -G "$work/$package/usr/lib/modules/*/vmlinuz" || true)"
    [ -n "$image" ] || fail "$package holds no kernel"
    echo "$image"
}

# `emulator`: QEMU for x86-64. Unpacked where it is not installed: to install it would replace what this machine may have
# of another version.
emulator() {
    emulator=(qemu-system-x86_64)
    if ! command -v "${emulator[0]}" >/dev/null; then
        local wanted
        apt=(apt-get)
        wanted="$(apt-get install -s --no-install-recommends qemu-system-x86 | sed -n 's/^Inst \([^ ]*\) (.*/\1/p')"
        [ -n "$wanted" ] || lack "no package qemu-system-x86 in this Debian's archives; apt-get update may help"
        # shellcheck disable=SC2086 # one word each
        fetch "$work/qemu" $wanted
        emulator=(env LD_LIBRARY_PATH="$work/qemu/usr/lib/x86_64-linux-gnu:$work/qemu/lib/x86_64-linux-gnu"
            "$work/qemu/usr/bin/qemu-system-x86_64" -L "$work/qemu/usr/share/qemu" -L "$work/qemu/usr/share/seabios")
    fi
    "${emulator[@]}" --version | head -1
}

# `cross`: a compiler and the core library for aarch64, which is the `target` from then on.
cross() {
    target=aarch64-unknown-linux-gnu
    install gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    # A target's core library comes with its compiler: rustup's if it has one, else Debian's.
    if ! rustup target list --installed 2>/dev/null | grep -qx "$target" && ! rustup target add "$target" 2>/dev/null; then
        foreign=arm64
        install rustc-web libstd-rust-web-dev:arm64
        export RUSTC=/usr/bin/rustc
    fi
    "${RUSTC:-rustc}" --version
}

# `root`: the files of a guest, empty but for folders.
begin_files() {
    root="$work/root"
    rm -rf "$root"
    mkdir -p "$root"/{bin,lib,proc,sys,dev,tmp,tests}
}

# unpacked FOLDER LOADER: the packages that were fetched there go into the guest, and their loader where programs look
# for it.
unpacked() {
    local folder loader
    cp -r "$1/usr" "$root/"
    rm -rf "$root/usr/share"
    for folder in lib lib64; do
        [ ! -d "$1/$folder" ] || cp -rn "$1/$folder" "$root/"
    done
    mkdir -p "$root/${2%/*}"
    loader="$(cd "$root" && find lib* usr/lib -name "${2##*/}" -type f -o -name 'ld-2*.so' -type f | head -1)"
    [ -n "$loader" ] || fail "no package in $1 has a loader"
    [ -e "$root/$2" ] || ln -sf "/$loader" "$root/$2"
}

# build PACKAGE KIND TEST...: copies the programs of these tests, which are of a KIND that cargo knows (test, bin).
build() {
    local package="$1" kind="$2" test arguments=() path strip=strip
    shift 2
    [ "${target:-}" != aarch64-unknown-linux-gnu ] || strip=aarch64-linux-gnu-strip
    for test; do arguments+=("--$kind" "$test"); done
    cargo test --locked -p "$package" ${target:+--target "$target"} "${arguments[@]}" --no-run --message-format=json \
        --config 'profile.dev.package."*".opt-level = 0' >"$work/messages"
    for test; do
        path="$(sed -n "s/.*\"name\":\"$test\".*\"executable\":\"\([^\"]*\)\".*/\1/p" "$work/messages" | tail -1)"
        [ -n "$path" ] || fail "cargo named no program for the test $test"
        "$strip" -o "$root/tests/$package-$test" "$path"
    done
}

# busybox ARCHITECTURE: the guest's shell and tools. Not installed: that would replace this machine's own.
busybox() {
    fetch "$work/busybox-$1" "busybox-static:$1"
    cp "$(find "$work/busybox-$1" -path '*/bin/busybox')" "$root/bin/busybox"
}

# end_files VARIABLES TESTS: packs the files. The guest runs all in /tests, with these variables, and of test programs
# those tests, or all. What is a shell's script there is run as it is.
end_files() {
    cat >"$root/init" <<INIT
#!/bin/busybox sh
export PATH=/bin:/usr/bin $1 PERSEQ_TEST_SECONDS=$PERSEQ_TEST_SECONDS RSEQ_STRESS_SECONDS=2
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
echo +cpuset +memory >/sys/fs/cgroup/cgroup.subtree_control
# The first group with a cpuset makes the kernel patch its own text, and the last one that goes: QEMU 7.2 then may run the
# breakpoint that stood there meanwhile after it is gone, of which the kernel dies. This group stays.
mkdir /sys/fs/cgroup/stays
ip link set lo up
echo "guest: \$(uname -r) \$(uname -m), \$(nproc) CPUs"
grep -m1 KernelPageSize /proc/self/smaps
for test in /tests/*; do
    echo "guest: \$test"
    case \$test in *.sh) options= ;; *) options="$2 --test-threads=1 --nocapture" ;; esac
    if \$test \$options; then echo "guest: passed \$test"; else echo "guest: FAILED \$test"; fi
done
echo "guest: done"
poweroff -f
INIT
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initramfs"
}

# boot QEMU ARGUMENT... -append PARAMETERS: runs the guest, and fails if a test failed.
boot() {
    local parameters="${*: -1}"
    timeout "${TIMEOUT:-3600}" "${@:1:$#-1}" "$parameters quiet panic=-1 norandmaps" -initrd "$work/initramfs" \
        -m "${memory:-3G}" -nic none -nographic -no-reboot </dev/null | sed -u 's,\r,,g' | tee "$work/output"
    grep -q '^guest: done' "$work/output" || fail "the machine did not come to its end"
    ! grep '^guest: FAILED' "$work/output" || fail "tests failed"
}
