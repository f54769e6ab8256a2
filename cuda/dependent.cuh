// How a launch begins before the one before it has ended.
//
// The idea: much of what a block does needs nothing that the launch before makes: its record, its weights, where everything lies.
// (The cursor and the classes have been written before the launches of a list.)
// If the host allows it, blocks begin when all of that launch's have come far enough, and wait for its end only when they need
// what it has made. They let the next one's begin no sooner than that: so whatever came before the last launch has ended when a
// block begins. For devices of compute capability 9.0 and later; where the host does not allow it this does nothing.

#pragma once

// Waits until the launch before has ended and all that it has written can be read; from then on the next one's blocks may begin.
// By all threads of a block that read or write what other launches do.
__device__ __forceinline__ void behind_last_launch() {
    asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
}
