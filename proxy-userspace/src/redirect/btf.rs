//! Offsets of members in the running kernel's types, from its BTF (linux/btf.h; Documentation/bpf/btf.rst). Reads no
//! more of the format than that takes.
#![forbid(unsafe_code)]

use proxy_common::TaskLayout;

const FILE: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Anonymous structs and unions within one another that are looked into.
const MAX_NESTING: u32 = 8;

/// Where this kernel keeps what names a process's executable; None: it doesn't say.
pub(super) fn task_layout() -> Option<TaskLayout> {
    let bytes = std::fs::read(FILE).ok()?;
    layout(&Btf::parse(&bytes)?)
}

fn layout(btf: &Btf<'_>) -> Option<TaskLayout> {
    Some(TaskLayout {
        task_mm: btf.offset("task_struct", "mm")?,
        mm_exe_file: btf.offset("mm_struct", "exe_file")?,
        file_inode: btf.offset("file", "f_inode")?,
        inode_number: btf.offset("inode", "i_ino")?,
        inode_superblock: btf.offset("inode", "i_sb")?,
        superblock_device: btf.offset("super_block", "s_dev")?,
    })
}

struct Btf<'a> {
    /// Of each type, from number 1 on: its record.
    types: Vec<&'a [u8]>,
    strings: &'a [u8],
}

/// `struct btf_type`, as far as it is used.
struct Type<'a> {
    name: u32,
    info: u32,
    rest: &'a [u8],
}

const TYPE_SIZE: usize = 12;
const MEMBER_SIZE: usize = 12;

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let field = |at: usize| word(bytes, at).map(|word| word as usize);
        let body = bytes.get(field(4)?..)?;
        let mut section = body.get(field(8)?..)?.get(..field(12)?)?;
        let strings = body.get(field(16)?..)?.get(..field(20)?)?;
        let mut types = Vec::new();
        while !section.is_empty() {
            let record = section.get(..record_size(section)?)?;
            types.push(record);
            section = &section[record.len()..];
        }
        Some(Self { types, strings })
    }

    /// Bytes from the start of a struct to its member.
    fn offset(&self, of: &str, member: &str) -> Option<u32> {
        let mut structs = self.types.iter().filter_map(|record| Type::parse(record));
        let found = structs.find(|found| found.kind() == KIND_STRUCT && self.is_named(found.name, of))?;
        let bits = self.member(&found, member, MAX_NESTING)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// In bits. Members of an anonymous member count as the struct's own.
    fn member(&self, of: &Type<'a>, name: &str, nesting: u32) -> Option<u32> {
        of.rest.chunks_exact(MEMBER_SIZE).take(of.count()).find_map(|member| {
            let (its_name, its_type) = (word(member, 0)?, word(member, 4)?);
            let offset = if of.has_bitfields() { word(member, 8)? & 0xff_ffff } else { word(member, 8)? };
            if self.is_named(its_name, name) {
                return Some(offset);
            }
            if its_name != 0 || nesting == 0 {
                return None;
            }
            let inner = Type::parse(self.types.get((its_type as usize).checked_sub(1)?)?)?;
            let within = matches!(inner.kind(), KIND_STRUCT | KIND_UNION);
            within.then(|| self.member(&inner, name, nesting - 1))?.map(|inner| offset + inner)
        })
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let text = self.strings.get(at as usize..).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

impl<'a> Type<'a> {
    fn parse(record: &'a [u8]) -> Option<Self> {
        Some(Self { name: word(record, 0)?, info: word(record, 4)?, rest: record.get(TYPE_SIZE..)? })
    }

    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn count(&self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn has_bitfields(&self) -> bool {
        self.info >> 31 != 0
    }
}

/// Of the first type: what follows the fixed part depends on its kind.
fn record_size(section: &[u8]) -> Option<usize> {
    let first = Type::parse(section)?;
    let more = match first.kind() {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * first.count(),
        KIND_ENUM | KIND_FUNC_PROTO => 8 * first.count(),
        _ => 0,
    };
    Some(TYPE_SIZE + more)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct outer { int first; struct { int pad; struct { int inner; }; }; }`, with its strings.
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0first\0inner\0pad\0";
        let structure = |name: u32, members: &[(u32, u32, u32)]| {
            let head = [name, KIND_STRUCT << 24 | members.len() as u32, 0];
            let members = members.iter().flat_map(|(name, its_type, bits)| [*name, *its_type, *bits]);
            head.into_iter().chain(members).collect::<Vec<u32>>()
        };
        let int = vec![0, KIND_INT << 24, 4, 32];
        let types: Vec<u32> = [
            int,
            structure(0, &[(13, 1, 0)]),
            structure(0, &[(19, 1, 0), (0, 2, 32)]),
            structure(1, &[(7, 1, 0), (0, 3, 32)]),
        ]
        .concat();
        let lengths = [24, 0, types.len() as u32 * 4, types.len() as u32 * 4, strings.len() as u32];
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(lengths.iter().chain(&types).flat_map(|word| word.to_ne_bytes()));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn finds_members_within_anonymous_ones() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.offset("outer", "first"), Some(0));
        assert_eq!(btf.offset("outer", "inner"), Some(8));
        assert_eq!(btf.offset("outer", "none"), None);
        assert_eq!(btf.offset("oute", "first"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..300_usize, byte: u8, cut in 0..300_usize) {
            let mut bytes = sample();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            if let Some(btf) = Btf::parse(&bytes) {
                let _ = btf.offset("outer", "inner");
            }
        }
    }
}
