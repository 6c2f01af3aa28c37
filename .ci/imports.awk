# Fails where a blank line divides the imports at the top of a Rust file: rustfmt sorts those that stand together, so one block
# has one order. Imports and re-exports (pub use) are a block each.
FNR == 1 { kind = ""; blank = 0 }
# A long import, up to its last line.
inside { if (/;[[:space:]]*$/) inside = 0; next }
/^(pub(\([a-z]+\))? )?use / {
    now = /^pub/ ? "pub use" : "use"
    if (blank && kind == now) {
        printf "%s:%d: a blank line divides the imports: put them into one block\n", FILENAME, FNR
        failed = 1
    }
    kind = now
    blank = 0
    inside = !/;[[:space:]]*$/
    next
}
/^[[:space:]]*$/ { blank = 1; next }
/^#\[/ { next }
{ kind = ""; blank = 0 }
END { exit failed }
