package gunzip

import (
	"encoding/binary"
	"math/bits"
)

// Tables map the next bits to an entry: the symbol, what follows it and how many
// bits that takes. Codes longer than the table's index lead to a table of their
// own behind it.
const (
	litBits  = 11
	distBits = 9
	// Room for a table of 4 (6) bits behind every two of the longest codes.
	litTable  = 1<<litBits + 286/2<<(maxCode-litBits)
	distTable = 1<<distBits + 30/2<<(maxCode-distBits)
	maxCode   = 15
	maxMatch  = 258

	isLiteral = 1 << 31
	isEnd     = 1 << 30
	isTable   = 1 << 29
	isBad     = 1 << 28
	// Below: 16 bits of value from bit 8, extra bits from bit 4, code bits in bit 0.
	valueShift = 8
	extraShift = 4
	nibble     = 15
)

func lengthEntry(symbol int) uint32 {
	switch {
	case symbol < 256:
		return isLiteral | uint32(symbol)<<valueShift
	case symbol == 256:
		return isEnd
	case symbol < 265:
		return uint32(symbol-257+3) << valueShift
	case symbol < 285:
		extra := uint32(symbol-261) / 4
		base := (4+uint32(symbol-265)%4)<<extra + 3
		return base<<valueShift | extra<<extraShift
	case symbol == 285:
		return maxMatch << valueShift
	}
	return isBad
}

func distEntry(symbol int) uint32 {
	switch {
	case symbol < 4:
		return uint32(symbol+1) << valueShift
	case symbol < 30:
		extra := uint32(symbol-2) / 2
		base := (2+uint32(symbol)%2)<<extra + 1
		return base<<valueShift | extra<<extraShift
	}
	return isBad
}

// build fills a table for the lengths of codes. Incomplete codes are refused, but
// for one code of one bit, or none at all, which may just not be used.
func build(table []uint32, index int, lengths []byte, entry func(int) uint32) error {
	var count, next [maxCode + 2]int
	most := 0
	for _, n := range lengths {
		count[n]++
		most = max(most, int(n))
	}
	count[0] = 0
	for i := range table[:1<<index] {
		table[i] = isBad | 1
	}
	if most == 0 {
		return nil
	}
	code := 0
	for n := 1; n <= maxCode; n++ {
		code = (code + count[n-1]) << 1
		next[n] = code
	}
	last := next[most] + count[most]
	if last != 1<<most && !(last == 1 && most == 1) {
		return ErrFormat
	}
	free := 1 << index
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		reversed := int(bits.Reverse16(uint16(next[n])) >> (16 - n))
		next[n]++
		if int(n) <= index {
			for i := reversed; i < 1<<index; i += 1 << n {
				table[i] = entry(symbol) | uint32(n)
			}
			continue
		}
		// The first bits lead to a table of as many more as the longest code has.
		first := reversed & (1<<index - 1)
		more := most - index
		if table[first]&isTable == 0 {
			if free+1<<more > len(table) {
				return ErrFormat
			}
			table[first] = isTable | uint32(free)<<valueShift | uint32(more)<<extraShift | uint32(index)
			for i := range 1 << more {
				table[free+i] = isBad | 1
			}
			free += 1 << more
		}
		at := int(table[first] >> valueShift & 0xffff)
		for i := reversed >> index; i < 1<<more; i += 1 << (int(n) - index) {
			table[at+i] = entry(symbol) | uint32(int(n)-index)
		}
	}
	return nil
}

func (z *Reader) fixed() error {
	var lengths [288]byte
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	if err := build(z.lit[:], litBits, lengths[:], lengthEntry); err != nil {
		return err
	}
	var dists [32]byte
	for i := range dists {
		dists[i] = 5
	}
	return build(z.dist[:], distBits, dists[:], distEntry)
}

// codeOrder is the order in which the lengths of the code of lengths come.
func codeOrder() [19]byte {
	return [19]byte{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
}

func (z *Reader) dynamic() error {
	head, err := z.take(14)
	if err != nil {
		return err
	}
	lits, dists, codes := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if lits > 286 || dists > 30 {
		return ErrFormat
	}
	var codeLengths [19]byte
	order := codeOrder()
	for _, i := range order[:codes] {
		n, err := z.take(3)
		if err != nil {
			return err
		}
		codeLengths[i] = byte(n)
	}
	var table [1 << 7]uint32
	if err := build(table[:], 7, codeLengths[:], func(s int) uint32 { return uint32(s) << valueShift }); err != nil {
		return err
	}
	var lengths [286 + 30]byte
	for i := 0; i < lits+dists; {
		if z.count < 16 {
			if err := z.refill(); err != nil {
				return err
			}
		}
		e := table[z.bits&(1<<7-1)]
		if e&isBad != 0 {
			return ErrFormat
		}
		if _, err := z.take(uint(e & nibble)); err != nil {
			return err
		}
		symbol := e >> valueShift & 0xffff
		if symbol < 16 {
			lengths[i] = byte(symbol)
			i++
			continue
		}
		var value byte
		extra, base := uint(7), 11
		switch symbol {
		case 16:
			if i == 0 {
				return ErrFormat
			}
			value, extra, base = lengths[i-1], 2, 3
		case 17:
			extra, base = 3, 3
		}
		n, err := z.take(extra)
		if err != nil {
			return err
		}
		for range base + int(n) {
			if i >= lits+dists {
				return ErrFormat
			}
			lengths[i] = value
			i++
		}
	}
	if err := build(z.lit[:], litBits, lengths[:lits], lengthEntry); err != nil {
		return err
	}
	return build(z.dist[:], distBits, lengths[lits:lits+dists], distEntry)
}

// huffman decodes until the block ends or the output is full. What goes on in the
// loop is a guess for the processor each time: it has few branches for that.
func (z *Reader) huffman() error {
	in, out, lit, dists := z.in, z.out, &z.lit, &z.dist
	buf, count, pos, write := z.bits, z.count, z.pos, z.write
	save := func() { z.bits, z.count, z.pos, z.write = buf, count, pos, write }
	for write < outSize {
		// 56 bits are enough for a length, a distance and what is extra to both: 48.
		if z.end-pos < 8 {
			save()
			if err := z.refill(); err != nil {
				return err
			}
			if err := z.overrun(); err != nil {
				return err
			}
			buf, count, pos = z.bits, z.count, z.pos
		} else {
			buf |= binary.LittleEndian.Uint64(in[pos:]) << (count & 63)
			pos += int((63 - count) >> 3)
			count |= 56
		}
		e := lit[buf&(1<<litBits-1)]
		if e&isLiteral != 0 {
			// Up to three literals of the table's own from one filling.
			buf >>= e & nibble
			count -= uint(e & nibble)
			out[write] = byte(e >> valueShift)
			write++
			if e = lit[buf&(1<<litBits-1)]; e&isLiteral != 0 {
				buf >>= e & nibble
				count -= uint(e & nibble)
				out[write] = byte(e >> valueShift)
				write++
				if e = lit[buf&(1<<litBits-1)]; e&isLiteral != 0 {
					buf >>= e & nibble
					count -= uint(e & nibble)
					out[write] = byte(e >> valueShift)
					write++
					continue
				}
			}
			if z.end-pos < 8 {
				continue
			}
			buf |= binary.LittleEndian.Uint64(in[pos:]) << (count & 63)
			pos += int((63 - count) >> 3)
			count |= 56
		}
		if e&isTable != 0 {
			buf >>= litBits
			count -= litBits
			e = lit[(e>>valueShift&0xffff)+uint32(buf&(1<<(e>>extraShift&nibble)-1))]
		}
		buf >>= e & nibble
		count -= uint(e & nibble)
		if e&(isLiteral|isEnd|isBad) != 0 {
			switch {
			case e&isLiteral != 0:
				out[write] = byte(e >> valueShift)
				write++
				continue
			case e&isEnd != 0:
				save()
				z.inBlock = false
				return z.overrun()
			}
			save()
			return z.corrupt()
		}
		extra := uint(e >> extraShift & nibble)
		length := int(e>>valueShift&0xffff) + int(buf&(1<<extra-1))
		buf >>= extra
		count -= extra

		e = dists[buf&(1<<distBits-1)]
		if e&isTable != 0 {
			buf >>= distBits
			count -= distBits
			e = dists[(e>>valueShift&0xffff)+uint32(buf&(1<<(e>>extraShift&nibble)-1))]
		}
		if e&isBad != 0 {
			save()
			return z.corrupt()
		}
		buf >>= e & nibble
		count -= uint(e & nibble)
		extra = uint(e >> extraShift & nibble)
		dist := int(e>>valueShift&0xffff) + int(buf&(1<<extra-1))
		buf >>= extra
		count -= extra
		if dist > write-z.start {
			save()
			return z.corrupt()
		}
		from := write - dist
		if dist >= 8 {
			// By words, beyond the end: what comes next overwrites it. Most matches are
			// short, and so many words are copied whatever their length.
			to, of := out[write:write+maxMatch+margin], out[from:write+maxMatch+margin]
			binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(of))
			binary.LittleEndian.PutUint64(to[8:], binary.LittleEndian.Uint64(of[8:]))
			binary.LittleEndian.PutUint64(to[16:], binary.LittleEndian.Uint64(of[16:]))
			for n := 24; n < length; n += 8 {
				binary.LittleEndian.PutUint64(to[n:], binary.LittleEndian.Uint64(of[n:]))
			}
			write += length
			continue
		}
		for range length {
			out[write] = out[from]
			write++
			from++
		}
	}
	save()
	return z.overrun()
}

// corrupt tells bad codes from an input cut short, after which zeros are read.
func (z *Reader) corrupt() error {
	if err := z.overrun(); err != nil {
		return err
	}
	return ErrFormat
}
