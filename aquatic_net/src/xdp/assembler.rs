//! Instructions of eBPF, and jumps to labels.

/// Register that holds results, and the verdict at the end.
pub(super) const R0: u8 = 0;
/// First argument of a call.
pub(super) const R1: u8 = 1;
/// Second argument of a call.
pub(super) const R2: u8 = 2;
/// Third argument of a call.
pub(super) const R3: u8 = 3;
/// Free until the next call.
pub(super) const R4: u8 = 4;
/// Free until the next call.
pub(super) const R5: u8 = 5;
/// Kept over calls.
pub(super) const R6: u8 = 6;
/// Kept over calls.
pub(super) const R7: u8 = 7;
/// Kept over calls.
pub(super) const R8: u8 = 8;
/// Kept over calls.
pub(super) const R9: u8 = 9;
/// End of the stack.
pub(super) const FRAME: u8 = 10;

/// Size of what an instruction reads or writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Byte,
    Half,
    Word,
    Double,
}

impl Size {
    /// The bits of an operation code.
    fn bits(self) -> u8 {
        match self {
            Self::Byte => 0x10,
            Self::Half => 0x08,
            Self::Word => 0x00,
            Self::Double => 0x18,
        }
    }
}

/// Comparison of a jump. Numbers are unsigned.
#[derive(Clone, Copy, Debug)]
pub(super) enum If {
    Equal,
    Greater,
    AtLeast,
    Less,
    Different,
    /// Both have a bit in common.
    AnyBit,
}

impl If {
    fn bits(self) -> u8 {
        match self {
            Self::Equal => 0x10,
            Self::Greater => 0x20,
            Self::AtLeast => 0x30,
            Self::AnyBit => 0x40,
            Self::Different => 0x50,
            Self::Less => 0xa0,
        }
    }
}

/// One instruction as the kernel reads it (`struct bpf_insn` of a little-endian machine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// The destination in the lower half, the source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Somewhere in the program that can be jumped to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

/// A program that is being written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<Instruction>,
    /// Position of each label, once it has been placed.
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label, to be placed later.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Has a label stand for the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        let position = self.instructions.len();
        if let Some(slot) = self.labels.get_mut(label.0) {
            *slot = Some(position);
        }
    }

    fn add(&mut self, code: u8, (to, from): (u8, u8), offset: i16, immediate: i32) {
        self.instructions.push(Instruction { code, registers: to | from << 4, offset, immediate });
    }

    /// Reads memory at an address and an offset.
    pub(super) fn load(&mut self, size: Size, to: u8, (address, offset): (u8, i16)) {
        self.add(0x61 | size.bits(), (to, address), offset, 0);
    }

    /// Writes a register to memory.
    pub(super) fn store(&mut self, size: Size, (address, offset): (u8, i16), from: u8) {
        self.add(0x63 | size.bits(), (address, from), offset, 0);
    }

    /// Writes a number to memory.
    pub(super) fn store_number(&mut self, size: Size, (address, offset): (u8, i16), number: i32) {
        self.add(0x62 | size.bits(), (address, 0), offset, number);
    }

    /// Adds a register to what stands in memory, 64 bits wide, in one step.
    pub(super) fn atomic_add(&mut self, (address, offset): (u8, i16), from: u8) {
        self.add(0xdb, (address, from), offset, 0);
    }

    /// Copies a register.
    pub(super) fn copy(&mut self, to: u8, from: u8) {
        self.add(0xbf, (to, from), 0, 0);
    }

    /// Sets a register to a number.
    pub(super) fn set(&mut self, to: u8, number: i32) {
        self.add(0xb7, (to, 0), 0, number);
    }

    /// Adds a number to a register.
    pub(super) fn add_number(&mut self, to: u8, number: i32) {
        self.add(0x07, (to, 0), 0, number);
    }

    /// Adds a register to another one.
    pub(super) fn add_register(&mut self, to: u8, from: u8) {
        self.add(0x0f, (to, from), 0, 0);
    }

    /// Keeps the bits of a register that a number has.
    pub(super) fn and(&mut self, to: u8, number: i32) {
        self.add(0x57, (to, 0), 0, number);
    }

    /// Turns the lower 16 bits from the order of the network into a number, or back.
    pub(super) fn swap_half(&mut self, register: u8) {
        self.add(0xdc, (register, 0), 0, 16);
    }

    /// Sets a register to a map, by its descriptor.
    pub(super) fn set_map(&mut self, to: u8, descriptor: i32) {
        /// The number is the descriptor of a map.
        const MAP: u8 = 1;
        self.add(0x18, (to, MAP), 0, descriptor);
        self.add(0, (0, 0), 0, 0);
    }

    /// Jumps if a register compares so to a number.
    pub(super) fn jump_if(&mut self, register: u8, comparison: If, number: i32, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.add(0x05 | comparison.bits(), (register, 0), 0, number);
    }

    /// Jumps if a register compares so to another one.
    pub(super) fn jump_if_register(&mut self, register: u8, comparison: If, other: u8, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.add(0x0d | comparison.bits(), (register, other), 0, 0);
    }

    /// Jumps.
    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.add(0x05, (0, 0), 0, 0);
    }

    /// Calls a function of the kernel by its number. Registers 1 to 5 are lost, the result is in register 0.
    pub(super) fn call(&mut self, function: i32) {
        self.add(0x85, (0, 0), 0, function);
    }

    /// Ends the program with the verdict in register 0.
    pub(super) fn exit(&mut self) {
        self.add(0x95, (0, 0), 0, 0);
    }

    /// The program, with all jumps leading to their labels.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, Label(label)) in self.jumps {
            // A label that is missing or too far away leads to a program that the kernel refuses.
            let target = self.labels.get(label).copied().flatten().unwrap_or(usize::MAX);
            let distance = target.checked_sub(at + 1).and_then(|distance| i16::try_from(distance).ok());
            if let Some(instruction) = self.instructions.get_mut(at) {
                instruction.offset = distance.unwrap_or(i16::MAX);
            }
        }
        self.instructions
    }
}
