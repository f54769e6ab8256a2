"""What an instruction computes: a line of Python for each lane of a warp.

The idea: only what leads to a branch or an address has to be exact: integers, predicates, moves and loads. The rest is
computed as far as it is simple (floats without their last bits' rules), or is unknown: `None`, which Python itself
carries on, since arithmetic with it raises TypeError. So an instruction that is not here spoils nothing until a branch
asks for what it made.

A lane has registers `r`, predicates `p`, uniform registers `u` and uniform predicates `q` (kept for each lane, though
the machine has one set for a warp). Integers are unsigned; a predicate is 0 or 1.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable

from .listing import Instruction, Kernel, Problem
from .words import (
    M,
    as_double,
    as_float,
    bits_of,
    bits_of_double,
    funnel,
    lut,
    permuted,
    rounded_up,
    signed,
    signed64,
    special,
    to_int,
)

ORDER = {"LT": "<", "LE": "<=", "GT": ">", "GE": ">=", "EQ": "==", "NE": "!="}


class Translator:
    """Makes a function of an instruction: of the lanes that run it, to what it does to them."""

    def __init__(self, kernel: Kernel, bank0: Callable[[int], int], names: dict):
        self.kernel, self.bank0 = kernel, bank0
        self.names = dict(
            M=M,
            signed=signed,
            signed64=signed64,
            F=as_float,
            B=bits_of,
            D=as_double,
            BD=bits_of_double,
            rounded_up=rounded_up,
            to_int=to_int,
            lut=lut,
            permuted=permuted,
            funnel=funnel,
            special=special,
            bank=self.bank,
            math=math,
            **names,
        )
        self.unknown: set[str] = set()  # kinds of instructions that were met and are not here

    def bank(self, number: int, at: int) -> int:
        if number == 0:
            return self.bank0(at)
        data = self.kernel.banks.get(number, b"")
        if at + 4 > len(data):
            raise Problem(f"constant bank {number} has nothing at {at:#x}")
        return struct.unpack_from("<I", data, at)[0]

    # Operands as expressions.

    def predicate(self, x: str) -> str:
        if x.startswith("!"):
            return f"(1 - {self.predicate(x[1:])})"
        if x in ("PT", "UPT"):
            return "1"
        return f"q[{x[2:]}]" if x.startswith("U") else f"p[{x[1:]}]"

    def integer(self, x: str, above: int = 0, exact_negative: bool = False) -> str:
        """A 32-bit operand, or the register `above` it. Negative: modulo 2^32, or as the adder sees it, with carry."""
        x = x.replace(".reuse", "")
        if x.startswith("-") and not x.startswith("-0x"):
            inner = self.integer(x[1:], above)
            return f"(({inner} ^ M) + 1)" if exact_negative else f"(-{inner} & M)"
        if x.startswith("~"):
            return f"({self.integer(x[1:], above)} ^ M)"
        if x.startswith("|"):
            return f"(abs(signed({self.integer(x.strip('|'), above)})))"
        if x in ("RZ", "URZ"):
            return "0"
        if m := re.fullmatch(r"(U?)R(\d+)", x):
            return f"{'u' if m[1] else 'r'}[{int(m[2]) + above}]"
        if m := re.fullmatch(r"c\[(0x\w+)\]\[(0x\w+)\]", x):
            return str(self.bank(int(m[1], 16), int(m[2], 16) + 4 * above))
        if m := re.fullmatch(r"c\[(0x\w+)\]\[(U?R\w+)(?:\+(-?0x\w+))?\]", x):
            at = f"{self.integer(m[2])} + {int(m[3] or '0', 16) + 4 * above}"
            return f"bank({int(m[1], 16)}, {at})"
        if re.fullmatch(r"-?0x[0-9a-f]+", x):
            value = int(x, 16)
            return str((value >> 32 * above if value >= 0 or above == 0 else -1) & M)
        if re.fullmatch(r"\d+", x):
            return x
        raise KeyError(x)

    def pair(self, x: str, is_signed: bool = False) -> str:
        """64 bits: of a register and the next; a zero is zero."""
        x = x.replace(".reuse", "")
        text = f"({self.integer(x)} | {self.integer(x, 1)} << 32)" if x not in ("RZ", "URZ") else "0"
        return f"signed64({text})" if is_signed else text

    @staticmethod
    def signed(x: str, plain: Callable[[str], str]) -> str:
        """An operand with a minus before it and bars around it, as they may be, of what `plain` makes of it without."""
        x = x.replace(".reuse", "").strip()
        if x.startswith("-") and x[1:2] in "|RUc":
            return f"(-{Translator.signed(x[1:], plain)})"
        if x.startswith("|"):
            return f"abs({Translator.signed(x.strip('|'), plain)})"
        return plain(x)

    def real(self, x: str) -> str:
        return self.signed(x, self.plain_real)

    def plain_real(self, x: str) -> str:
        if x.startswith(("R", "UR", "c[")):
            return f"F({self.integer(x)})"
        special_values = {"+INF": "math.inf", "-INF": "(-math.inf)", "+QNAN": "math.nan", "-QNAN": "math.nan"}
        return special_values.get(x) or f"({float(x)!r})"

    def double(self, x: str) -> str:
        """A float64 operand; of one that is no register pair, the number itself."""
        return self.signed(x, lambda x: f"D({self.pair(x)})" if x.startswith(("R", "UR", "c[")) else self.plain_real(x))

    def address(self, x: str, wide: bool) -> str:
        """`[R2.64+UR4+0x10]`, `desc[UR18][R2.64]`. Wide: a register is two, even if it does not say so (sm_75)."""
        inner = x[x.rindex("[") + 1 : x.rindex("]")]
        terms = []
        for term in re.findall(r"[^+]+", inner):
            name, _, rest = term.replace(".reuse", "").partition(".")
            if rest in ("64", "U32") or wide and not rest and re.fullmatch(r"U?R\d+", name):
                terms.append(self.integer(name) if rest == "U32" else self.pair(name))
            elif rest.startswith("X"):
                terms.append(f"{self.integer(name)} * {rest[1:]}")
            elif name.startswith("-0x"):
                terms.append(str(int(name, 16)))
            else:
                terms.append(self.integer(name))
        return " + ".join(terms) or "0"

    def into(self, x: str, above: int = 0) -> str:
        if x in ("RZ", "URZ", "PT", "UPT"):
            return "_"
        if x.startswith(("UP", "P")):
            return self.predicate(x)
        return self.integer(x, above)

    # Instructions as lines.

    def results(self, i: Instruction) -> list[str]:
        """What an instruction writes, if it is unknown what it computes."""
        if i.base in ("STG", "STS", "ST", "RED", "REDG", "LDGSTS", "STAS", "SYNCS"):
            return ["lost"]
        leading = []
        for k, x in enumerate(i.operands[:2]):
            if re.fullmatch(r"U?P\d", x):
                leading.append(self.predicate(x))
            elif re.fullmatch(r"U?R\d+", x) and k == (1 if leading or i.operands[0] in ("PT", "UPT") else 0):
                wide = re.search(r"\.(64|128|WIDE|F64)\b", i.op) or i.base in ("DADD", "DMUL", "DFMA", "CS2R")
                wide = 4 if ".128" in i.op else 2 if wide else 1
                leading += [self.integer(x, above) for above in range(wide)]
        return leading

    def lines(self, i: Instruction) -> list[str]:
        """The computation: assignments. KeyError: it is not here."""
        op, parts = i.base, i.op.split(".")[1:]
        if op.startswith("U") and op not in ("ULDC",):
            op = op[1:]
        x = i.operands
        I, P, R, to = self.integer, self.predicate, self.real, self.into
        # After the results there may be carries out; before the end, carries in.
        if op in ("IADD3", "LEA", "LOP3", "IMAD") and len(x) > 1 and re.fullmatch(r"U?P(\d|T)", x[1]):
            carries = [a for a in x[1:3] if re.fullmatch(r"U?P(\d|T)", a)]
        else:
            carries = []
        if op == "LOP3" and re.fullmatch(r"U?P(\d|T)", x[0]):
            x, carries = [x[1], x[0], *x[2:]], [x[0]]
        y = x[1 + len(carries) :]  # the operands proper
        carry = to(carries[0]) if carries else "_"
        d = to(x[0]) if x and re.fullmatch(r"U?[RP](\d+|Z|T)", x[0]) else "_"
        if op in (
            "NOP",
            "CCTL",
            "YIELD",
            "MEMBAR",
            "ERRBAR",
            "CGAERRBAR",
            "NANOSLEEP",
            "DEPBAR",
            "ENDCOLLECTIVE",
            "LDGDEPBAR",
            "CGABAR_ARV",
            "CGABAR_WAIT",
            "FENCE",
            "ACQBULK",  # griddepcontrol.wait
            "PREEXIT",  # griddepcontrol.launch_dependents
        ):
            return ["pass"]
        # One lane after the other: here each has uniform registers of its own.
        if op == "R2UR" and re.fullmatch(r"P\d", x[0]):
            return [f"{to(x[1])} = {I(x[2])}", f"{d} = 0"]
        if op in ("MOV", "R2UR"):
            return [f"{d} = {I(y[0])}"]
        if op == "CS2R" and y[0] == "SRZ":
            return [f"{d} = 0"] + ([] if "32" in parts else [f"{to(x[0], 1)} = 0"])
        if op in ("S2R", "S2UR"):
            return [f"{d} = register(lane, {y[0]!r})"]
        if op in ("LDC", "ULDC"):
            if "U8" in parts or "U16" in parts:
                raise KeyError(i.op)
            if "64" in parts:
                return [f"a, b = {I(y[0])}, {I(y[0], 1)}", f"{d}, {to(x[0], 1)} = a, b"]
            return [f"{d} = {I(y[0])}"]
        if op == "IADD3":
            total = " + ".join(I(a, exact_negative=True) for a in y[:3])
            if "X" in parts:
                total += "".join(f" + {P(a)}" for a in y[3:])
            # Three words may carry 2, which is a 1 in each of two predicates.
            second = [f"{to(carries[1])} = int(t >> 32 > 1)"] if len(carries) > 1 else []
            return [f"t = {total}", f"{d} = t & M", f"{carry} = int(t >> 32 > 0)", *second]
        if op == "VIADD":
            return [f"{d} = ({I(y[0])} + {I(y[1])}) & M"]
        if op == "IMAD":
            if "MOV" in parts:
                return [f"{d} = {I(y[2])}"]
            if "WIDE" in parts or "HI" in parts:
                if "X" in parts:
                    raise KeyError(i.op)
                is_signed = "U32" not in parts
                a, b = (f"signed({I(a)})" if is_signed else I(a) for a in y[:2])
                total = [f"t = {a} * {b} + {self.pair(y[2], is_signed)}"]
                if "HI" in parts:
                    return [*total, f"{d} = t >> 32 & M"]
                return [*total, f"{d} = t & M", f"{to(x[0], 1)} = t >> 32 & M", f"{carry} = t >> 64 & 1"]
            total = f"{I(y[0])} * {I(y[1])} + {I(y[2])}"
            if "X" in parts:
                total += "".join(f" + {P(a)}" for a in y[3:4])
            return [f"t = {total}", f"{d} = t & M", f"{carry} = min(t >> 32, 1)"]
        if op == "LEA":
            if "HI" in parts:
                extended = "SX32" in parts
                high = f"(-({I(y[0])} >> 31) & M)" if extended else I(y[2])
                shift, rest = (y[2], y[3:]) if extended else (y[3], y[4:])
                total = (
                    f"((({high} << 32 | {I(y[0])}) << {I(shift)}) >> 32 & M) + {I(y[1], exact_negative=True)}"
                )
            else:
                shift, rest = y[2], y[3:]
                total = f"({I(y[0])} << {I(shift)} & M) + {I(y[1], exact_negative=True)}"
            if "X" in parts:
                total += f" + {P(rest[-1])}"
            return [f"t = {total}", f"{d} = t & M", f"{carry} = min(t >> 32, 1)"]
        if op == "SHF":
            flags = ("L" in parts, "U64" in parts or "S64" in parts, "S32" in parts or "S64" in parts)
            flags = (*flags, "HI" in parts, "W" in parts)
            return [f"{d} = funnel({I(y[0])}, {I(y[1])}, {I(y[2])}, {', '.join(map(str, flags))})"]
        if op == "LOP3":
            value = f"lut({I(y[0])}, {I(y[1])}, {I(y[2])}, {int(y[3], 16)})"
            return [f"t = {value}", f"{d} = t", f"{carry} = int(t != 0)"]
        if op == "PLOP3":
            a, b, c = (P(a) for a in x[2:5])
            return [f"t = {a} * 4 + {b} * 2 + {c}"] + [
                f"{to(x[n])} = {int(x[5 + n], 16)} >> t & 1" for n in range(2)
            ]
        if op == "ISETP":
            compare, joined = parts[0], next(a for a in parts[1:] if a in ("AND", "OR", "XOR"))
            a, b = (I(a) if "U32" in parts else f"signed({I(a)})" for a in x[2:4])
            lines = [f"t = {a} - {b}", f"t = int(t {ORDER[compare]} 0)"]
            if "EX" in parts:  # the halves before decide where these are equal
                lines = [f"t = {a} - {b}", f"t = {P(x[5])} if t == 0 else int(t {ORDER[compare]} 0)"]
            return lines + self.joined(x, joined)
        if op == "FSETP":
            return self.compared(parts, R(x[2]), R(x[3])) + self.joined(x, parts[-1])
        if op in ("SEL", "FSEL"):
            if op == "FSEL":
                a, b = (I(a) if re.match(r"U?R|c\[", a) else f"B({R(a)})" for a in y[:2])
            else:
                a, b = I(y[0]), I(y[1])
            return [f"{d} = {a} if {P(y[2])} * 1 else {b}"]
        if op in ("VIMNMX", "VIMNMX3", "IMNMX", "VIADDMNMX"):
            values = [f"({I(y[0])} + {I(y[1])}) & M", I(y[2])] if op == "VIADDMNMX" else [I(y[0]), I(y[1])]
            if "U32" not in parts:
                values = [f"signed({a})" for a in values]
            if op == "VIMNMX3":
                values = [
                    values[0],
                    f"(lambda a, b: min(a, b) if {P(y[-1])} else max(a, b))({values[1]}, {I(y[2])})",
                ]
            low = "0" if "RELU" in parts else str(-(1 << 31))
            return [f"a, b = {values[0]}, {values[1]}", f"t = min(a, b) if {P(y[-1])} else max(a, b)"] + [
                f"{d} = max(t, {low}) & M"
            ]
        if op == "IABS":
            return [f"{d} = abs(signed({I(y[0])})) & M"]
        if op == "PRMT":
            return [f"{d} = permuted({I(y[0])}, {I(y[1])}, {I(y[2])})"]
        if op == "POPC":
            return [f"{d} = bin({I(y[0])}).count('1')"]
        if op == "BREV":
            return [f"{d} = int(format({I(y[0])}, '032b')[::-1], 2)"]
        if op == "FLO" and "U32" in parts:
            found = f"{I(y[0])}.bit_length() - 1"
            return [f"t = {found}", f"{d} = (31 - t if t >= 0 and {'SH' in parts} else t) & M"]
        if op == "I2F" and "F64" not in parts or op == "I2FP":
            a = I(y[0]) if "U32" in parts else f"signed({I(y[0])})"
            return [f"{d} = rounded_up({a})" if "RP" in parts else f"{d} = B(float({a}))"]
        if op == "F2I" and "F64" not in parts and "TRUNC" in parts:
            low, high = (0, M) if "U32" in parts else (-(1 << 31), M >> 1)
            return [f"{d} = to_int({R(y[0])}, {low}, {high})"]
        if op == "HFMA2" and y[:2] == ["-RZ", "RZ"]:
            high, low = (struct.unpack("<H", struct.pack("<e", float(a)))[0] for a in y[2:4])
            return [f"{d} = {high << 16 | low}"]
        if op == "FADD":
            return [f"{d} = B({R(y[0])} + {R(y[1])})"]
        if op == "FMUL":
            return [f"{d} = B({R(y[0])} * {R(y[1])})"]
        if op == "FFMA":
            return [f"{d} = B({R(y[0])} * {R(y[1])} + {R(y[2])})"]
        if op in ("DADD", "DMUL", "DFMA"):  # DFMA with two roundings: see above
            text = {"DADD": "{} + {}", "DMUL": "{} * {}", "DFMA": "{} * {} + {}"}[op]
            return self.wide(x[0], f"BD({text.format(*map(self.double, y))})")
        if op == "DSETP":
            return self.compared(parts, *map(self.double, x[2:4])) + self.joined(x, parts[-1])
        if op == "F2F" and parts[:2] == ["F64", "F32"]:
            return self.wide(x[0], f"BD({R(y[0])})")
        if op == "F2F" and parts[:2] == ["F32", "F64"]:
            return [f"{d} = B({self.double(y[0])})"]
        if op == "I2F" and "F64" in parts:
            a = I(y[0]) if "U32" in parts else f"signed({I(y[0])})"
            return self.wide(x[0], f"BD(float({a}))")
        if op == "FRND" and parts == ["F64"]:
            return self.wide(x[0], f"BD(float(round({self.double(y[0])})))")
        if op == "F2I" and parts == ["F64"]:
            return [f"t = round({self.double(y[0])})", f"{d} = t & M"]
        if op == "MUFU" and parts == ["RCP64H"]:  # of upper halves
            return [f"{d} = BD(special('RCP', D({I(y[0])} << 32))) >> 32"]
        if op == "FMNMX":
            return [f"a, b = {R(y[0])}, {R(y[1])}", f"{d} = B(min(a, b) if {P(y[2])} else max(a, b))"]
        if op == "MUFU" and len(parts) == 1 and parts[0] in ("RCP", "EX2", "LG2", "RSQ", "SQRT"):
            return [f"{d} = B(special({parts[0]!r}, {R(y[0])}))"]
        if op == "FCHK":  # whether a division needs the slow way: with common numbers it does not
            return [f"t = abs({R(x[2] if len(x) > 2 else x[1])})", f"{d} = int(not 1e-30 < t < 1e30)"]
        if op in ("LDG", "LDS", "LD"):
            where = f"{self.address(y[-1], 'E' in parts)}"
            words = 4 if "128" in parts else 2 if "64" in parts else 1
            for width, size in (("U8", 1), ("S8", 1), ("U16", 2), ("S16", 2)):
                if width in parts:
                    return [f"t = load(lane, {op!r}, {where}, {size})", f"{d} = t"]
            lines = [f"t = {where}"]
            lines += [f"a{n} = load(lane, {op!r}, t + {4 * n}, 4)" for n in range(words)]
            return lines + [f"{to(x[0], n)} = a{n}" for n in range(words)]
        if op in ("STG", "STS", "ST"):
            words = 4 if "128" in parts else 2 if "64" in parts else 1
            size = 1 if "U8" in parts else 2 if "U16" in parts else 4
            lines = [f"t = {self.address(x[0], 'E' in parts)}"]
            return lines + [f"store(lane, {op!r}, t + {4 * n}, {I(x[1], n)}, {size})" for n in range(words)]
        if op == "LDGSTS":
            return [f"copy(lane, {self.address(x[0], False)}, {self.address(x[1], True)}, 16)"]
        if op == "STAS":
            to, arrivals = x[0][1:].split(".")[0], self.integer(x[0][1:].split(".")[0], 1)
            words = 4 if "128" in parts else 2 if "64" in parts else 1
            return [f"t, at = {I(to)} & M, {arrivals} & M"] + [
                f"send(lane, t + {4 * n}, {I(x[1], n)}, at, 4)" for n in range(words)
            ]
        if op == "SYNCS":
            if "EXCH" in parts:  # it begins
                return ["pass"]
            if "ARRIVE" in parts:
                return [f"expect(lane, {self.address(x[1], False)}, {I(x[2])} & M)"]
            return [f"{d} = ask(lane, {self.address(x[1], False)}, {I(x[2])} & M)"]
        if op in ("REDG", "RED"):
            return [f"touch(lane, {self.address(x[0], 'E' in parts)})"]
        if op == "P2R":
            return [f"{d} = sum(p[n] << n for n in range(7) if {int(y[-1], 16)} >> n & 1)"]
        if op == "R2P":
            return [f"t = {I(x[1])}"] + [f"p[{n}] = t >> {n} & 1" for n in range(7) if int(x[2], 16) >> n & 1]
        raise KeyError(i.op)

    def wide(self, x: str, value: str) -> list[str]:
        """64 bits into a register and the next."""
        return [f"t = {value}", f"{self.into(x)}, {self.into(x, 1)} = t & M, t >> 32"]

    def compared(self, parts: list[str], a: str, b: str) -> list[str]:
        """A comparison of floats into `t`."""
        lines, compare = [f"a, b = {a}, {b}"], parts[0]
        if compare.endswith("U") and compare[:-1] in ORDER:  # or unordered
            return [*lines, f"t = int(a != a or b != b or a {ORDER[compare[:-1]]} b)"]
        if compare == "NAN":
            return [*lines, "t = int(a != a or b != b)"]
        if compare == "NE":
            return [*lines, "t = int(a == a and b == b and a != b)"]
        return [*lines, f"t = int(a {ORDER[compare]} b)"]

    def joined(self, x: list[str], how: str) -> list[str]:
        """A comparison's result `t` into two predicates: it and its opposite, each joined with a third."""
        sign, third = {"AND": "&", "OR": "|", "XOR": "^"}[how], self.predicate(x[4])
        return [f"{self.into(x[0])}, {self.into(x[1])} = t {sign} {third}, (1 - t) {sign} {third}"]

    def function(self, i: Instruction) -> Callable[[list], None]:
        results = self.results(i)
        # A store to nobody knows where must not go unnoticed.
        unknown = (
            ["lost(lane)"] if results == ["lost"] else [f"{name} = None" for name in results] or ["pass"]
        )
        try:
            lines = self.lines(i)
        except (KeyError, ValueError, IndexError, StopIteration):
            self.unknown.add(i.op)
            lines = unknown
        text = [
            "def f(lanes):",
            " for lane in lanes:",
            "  r, p, u, q = lane.r, lane.p, lane.u, lane.q",
            "  try:",
        ]
        if i.guard:
            text += [f"   if not 1 * {self.predicate(i.guard)}: continue"]
        text += [f"   {line}" for line in lines]
        text += ["  except TypeError:"] + [f"   {line}" for line in unknown]
        scope = dict(self.names)
        exec("\n".join(text), scope)  # noqa: S102
        return scope["f"]
