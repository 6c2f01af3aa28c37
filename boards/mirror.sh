# shellcheck shell=bash
# Where this machine's apt gets its packages from. Sourced, not run.

# archive_of LABEL: the address of the archive that signs itself so (Debian, Debian-Security); nothing where apt knows none.
archive_of() {
    # shellcheck disable=SC2016 # apt's variables
    apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' | sed -n "s|/*$||; s/^$1|//p" | head -n 1
}
