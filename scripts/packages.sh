# The distribution's packages, unpacked and not installed: needs no root, changes nothing outside its directory, and leaves
# no daemon behind. To be sourced. Who does so has set `scratch`, a directory that is removed at the end.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# The directories of shared libraries below ROOT, for LD_LIBRARY_PATH.
libraries() { # ROOT
    find "$1" -name '*.so*' -exec dirname {} \; | sort -u | tr '\n' ':'
}

# Unpacks packages, and what they need that is not installed, to DIRECTORY/root. Package lists that
# are missing or out of date are fetched to the scratch directory: the system's own need root.
unpack_packages() { # DIRECTORY PACKAGE...
    local directory=$1 package
    shift
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "fetching the distribution's $1"
    download_packages "$directory" "$@" 2>/dev/null || {
        fetch_package_lists
        download_packages "$directory" "$@" || return 1
    }
    for package in "$directory"/*.deb; do
        dpkg -x "$package" "$directory/root" || return 1
    done
}

download_packages() { # DIRECTORY PACKAGE...
    local directory=$1 needed
    shift
    # `Inst name [old] (new)` is an upgrade of what is installed, and not needed.
    needed=$(apt -s install --no-install-recommends "$@" |
        awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }') || return 1
    mkdir -p "$directory"
    # shellcheck disable=SC2046,SC2086 # a list of words
    (cd "$directory" && apt download $(printf '%s\n' "$@" $needed | sort -u)) >&2
}

fetch_package_lists() {
    [ ! -d "$scratch/lists" ] || return 0
    mkdir -p "$scratch"/{lists,archives}/partial
    # Without this, a network that is away is no error, and packages are merely not found.
    apt -o APT::Update::Error-Mode=any update >"$scratch/update.log" 2>&1 || cat "$scratch/update.log" >&2
}

# apt-get on the lists fetched here, if there are any, or else on the system's.
apt() {
    local lists=()
    if [ -d "$scratch/lists" ]; then
        lists=(-o "Dir::State::lists=$scratch/lists" -o "Dir::Cache::archives=$scratch/archives"
            -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
    fi
    # Its unprivileged user cannot write here, and need not.
    apt-get -qq -o APT::Sandbox::User=root ${lists[@]+"${lists[@]}"} "$@"
}

# Unpacks the wheels of a list with their hashes to DIRECTORY.
unpack_wheels() { # PYTHON LIST DIRECTORY
    local wheels wheel
    wheels=$(mktemp -d "$scratch/wheels.XXXXXX")
    # Under pip's PIP_REQUIRE_VIRTUALENV even a download would be refused.
    PIP_REQUIRE_VIRTUALENV=0 "$1" -m pip -q download --disable-pip-version-check --no-cache-dir --retries 2 \
        --no-deps --only-binary :all: --require-hashes -r "$2" -d "$wheels" >&2 || return 1
    for wheel in "$wheels"/*.whl; do
        "$1" -m zipfile -e "$wheel" "$3" >&2 || return 1
    done
}

# Debian's pip, unpacked to `scratch`/pip, goes with Debian's Python, whatever else is first on PATH.
packaged_python() {
    local root=$scratch/pip/root python=/usr/bin/python3
    [ -x "$python" ] || python=$root/usr/bin/python3
    PYTHONPATH=$(printf '%s:' "$root"/usr/lib/python3/dist-packages "$root"/usr/lib/python3.*) \
        LD_LIBRARY_PATH=$(libraries "$root") "$python" "$@"
}
