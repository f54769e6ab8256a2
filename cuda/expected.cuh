// What the pixels of a row make, map by map.
//
// The idea: a map that a stage of the pixel phase writes, it writes whole: each position of a row that the map has is made
// at one pixel of that row. So what is pending when a row begins is a row of each of these maps, and of the image's.

#pragma once

#include "stage.cuh"

struct Expected {
    Grid map;
    int stride;   // rows of the image for one of the map
    int first;    // column
    int columns;  // of the map
    int channels; // that are written; those behind them, up to the map's, stay zero
};
static_assert(sizeof(Expected) == 48);
